"""The failures of the job in English, and the phrases in them.

Nothing goes in; out come dictionaries of `str.format` templates. The same codes and fields are in `messages_ja`, in
another language: this module is data alone, so that a text can be corrected without reading code.
"""

# What went wrong and what to check next, by the code of a JobError.
MESSAGES: dict[str, tuple[str, str]] = {
    "argument_invalid": (
        "Job argument --{name} is {value!r}, expected {expected}.",
        "Correct it where the run was started, or in configs.json and run terraform apply.",
    ),
    "argument_missing": (
        "Job argument --{name} is missing.",
        "Run terraform apply, which sets it from configs.json, or add it where the run is started.",
    ),
    "argument_unknown": (
        "Job argument --{name} is unknown{near}.",
        "Known arguments: {arguments}.",
    ),
    "arguments_conflict": (
        "Job arguments contradict each other: {conflict}.",
        "Change one of them in configs.json and run terraform apply, or where the run was started.",
    ),
    "secret_missing": (
        "Secret {secret!r} does not exist in Secrets Manager.",
        "Run terraform apply, which makes it, or check secret_arn in configs.json (--secret_name).",
    ),
    "secret_invalid": (
        "Secret {secret!r} {problem}.",
        "Store a JSON object with {fields} (strings): TF_VAR_credentials and terraform apply, or Secrets Manager.",
    ),
    "connection_missing": (
        "Glue connection {connection!r} does not exist.",
        "Run terraform apply, which makes it from Database in configs.json (--connection_name).",
    ),
    "connection_invalid": (
        "Glue connection {connection!r}: {problem}.",
        "Correct Database in configs.json (ca_uri, enforce_ssl, endpoint) and run terraform apply.",
    ),
    "access_denied": (
        "AWS denied {operation} on {resource}.",
        "Allow it in the job's role (KMS: kms_key_arns in common_settings.json) and in the bucket or key policy.",
    ),
    "aws_failed": (
        "AWS {operation} on {resource} failed: {problem}.",
        "Look at the log, then run the job again.",
    ),
    "source_missing": (
        "No source object at {url}.",
        "Check S3.source_bucket and S3.source_key in configs.json (--source_key), and that the file arrived.",
    ),
    "source_is_folder": (
        "No source object at {url}, but there are objects below {url}/.",
        "For all objects of the folder write S3.source_key in configs.json (--source_key) with a / at its end.",
    ),
    "source_archived": (
        "{url} is in an archive storage class of S3 (Glacier) and cannot be read.",
        "Restore it (aws s3api restore-object), or keep the lifecycle rule of the bucket away from the source.",
    ),
    "source_changed": (
        "{url} was replaced while the job read it.",
        "Run the job again once the upload is complete.",
    ),
    "source_empty": (
        "The source {url} has {problem}; publishing it would erase the output.",
        "Check the process that writes the file.",
    ),
    "source_malformed": (
        "Malformed JSON in {url}, record {record}, byte offset {offset}: {problem}.",
        "Correct the file (an array of objects, or one object per line) and run the job again.",
    ),
    "source_not_object": (
        "Record {record} of {url} (byte offset {offset}) is {kind}, not an object.",
        "Every record must be a JSON object.",
    ),
    "records_missing": (
        "No array of records at {path!r} in {url}: {problem}.",
        "Correct S3.records_at in configs.json (--records_at): names from the outside in, joined by dots.",
    ),
    "key_missing_in_source": (
        "No record of {url} has the key column {key!r}{near}.",
        "Columns found: {columns}. Set key in configs.json (--key), or S3.records_at if one of them holds the records.",
    ),
    "key_missing_in_table": (
        "Table {table} has no key column {key!r}{near}.",
        "Columns found: {columns}. Set Database.table_key in configs.json (--table_key), or key for both sides.",
    ),
    "column_missing": (
        "Neither source nor table has the column {name!r}{near}.",
        "Columns found: {columns}. Correct columns in configs.json (--columns).",
    ),
    "where_refused": (
        "The database refuses the condition {where!r} on table {table}: {problem}.",
        "Correct Database.table_where in configs.json (--table_where): one condition, parentheses and quotes closed.",
    ),
    "table_missing": (
        "Table {table} does not exist, or {user!r} may not read it{near}.",
        "Check db_name, table_name and schema_name of SecretsManager in configs.json, and the grants of the user.",
    ),
    "table_unreadable": (
        "Table {table} exists, but user {user!r} may not read any of its columns.",
        "GRANT SELECT on it. If it is a view, check that the tables and columns it is made of still exist.",
    ),
    "login_refused": (
        "The database at {host} refused the login of {user!r}.",
        "Check username and password in the secret {secret!r}; a server that demands TLS, Database.enforce_ssl.",
    ),
    "account_refused": (
        "The database at {host} does not let the account {user!r} in: {problem}.",
        "Unlock the account or renew its password on the server and in the secret, then run the job again.",
    ),
    "address_refused": (
        "The database at {host} admits no connection from the address of the job: {problem}.",
        "Admit the subnet of the connection: user@host and FLUSH HOSTS of MySQL, pg_hba.conf of PostgreSQL.",
    ),
    "tls_refused": (
        "The database at {host} and the job do not agree on TLS: {problem}.",
        "Compare Database.enforce_ssl in configs.json (JDBC_ENFORCE_SSL) with TLS and its versions on the server.",
    ),
    "authentication_unsupported": (
        "The JDBC driver cannot log in the way that the database at {host} asks for: {problem}.",
        "Give the user a method that the driver knows, set Database.enforce_ssl to true, or use a newer driver.",
    ),
    "no_connection_left": (
        "The database at {host} has no connection left: {problem}.",
        "Run it at another time, lower Database.max_connections in configs.json, or raise the server's limit.",
    ),
    "database_unreachable": (
        "The database at {host} cannot be reached.",
        "Check Database.endpoint and port in configs.json, the subnet, and the security group of the database.",
    ),
    "certificate_refused": (
        "The certificate of the database at {host} was refused: {problem}.",
        "Check that Database.ca_uri ({url}) holds the CA that signed it, and that it is for Database.endpoint.",
    ),
    "ca_invalid": (
        "The CA bundle {url} {problem}.",
        "Let Database.ca_uri name an S3 object with the certificates of the CA in PEM form.",
    ),
    "driver_missing": (
        "JDBC driver class {driver!r} is not on the class path.",
        "Let class_name and jar_uri of connection.jdbc_driver in common_settings.json fit each other (--extra-jars).",
    ),
    "driver_refuses_url": (
        "JDBC driver {driver!r} does not take the URL {url}.",
        "Let Database.dbtype fit connection.jdbc_driver; MariaDB Connector/J 3 needs permitMysqlScheme in the URL.",
    ),
    "spark_unsupported": (
        "This version of Spark lacks a call by which the table is read: {problem}.",
        "Set Glue.glue_version to 5.0, 5.1 or 6.0.",
    ),
    "value_too_large": (
        "A value of column {column!r} in {table} is too large to be sent: as text it exceeds max_allowed_packet.",
        "Raise it on the server (bytes as hex take twice their length) or read a view without the column.",
    ),
    "database_failed": (
        "The database at {host} failed: {problem}.",
        "Look at the log of the database, then run again.",
    ),
    "destination_missing": (
        "Destination bucket {bucket!r} does not exist.",
        "Check S3.destination_bucket in configs.json (--destination_bucket).",
    ),
    "not_encodable": (
        "{row}, column {column!r}: {encoding} has no character {character!r} (U+{codepoint}).",
        "Replace the character at its origin, or set csv.encoding in configs.json (--csv_encoding) to utf-8-sig.",
    ),
    "guard_tripped": (
        "The guard kept the output {output} as it was: {problem}.",
        "Look at the source. If it is right, start one run with --guard off, or change guard in configs.json.",
    ),
    "rows_lost": (
        "The output has {written} rows for {expected} source records; it was not published.",
        "The source or the table changed during the run: run the job again.",
    ),
    "output_unsure": (
        "S3 did not tell whether it replaced {url} ({problem}).",
        "The object there is whole, the old one or the new one: see its time, or run the job again.",
    ),
    "stopped": (
        "The run was stopped, by hand or by its timeout.",
        "Run it again; after a timeout raise Glue.timeout_minutes or number_of_workers in configs.json.",
    ),
    "unexpected": ("{problem}", "Look at the log of the run; the stack trace is there."),
}

# Words among the details of a failure.
PHRASES: dict[str, str] = {
    "near": " (did you mean {name!r}?)",
    "one_character": "one character, not a quote or a line break (tab: \\t)",
    "count": "a whole number from 1 to 99999",
    "percent": "a whole number from 0 to 100",
    "value": "a value",
    "object_key": "the key of one object",
    "placeholders": "a key with braces only as {{yyyy}}, {{mm}}, {{dd}} or {{hh}}",
    "date": "a day (2026-11-01), with its hour (2026-11-01T05) where a key has {{hh}}",
    "date_unused": "--date is {date}, but none of S3.source_key, S3.destination_file and the lists has a date",
    "zone": "the IANA name of a time zone, such as Asia/Tokyo, of which this machine has data (it has {count} zones)",
    "null_is_special": "csv.null (--csv_null) {null!r} holds the delimiter, a quote or a line break",
    "option_not_encodable": "csv.{name} (--csv_{name}) {value!r} does not exist in {encoding} (csv.encoding)",
    "output_is_source": "S3.{name} (--{name}) {output} would overwrite or join the source {source}",
    "report_is_source": "the run report {report} would overwrite the source",
    "list_is_output": "S3.{name} (--{name}) {key!r} is the key of the output, of its run report or of another list",
    "schema_unused": "SecretsManager.schema_name {schema!r} is for PostgreSQL, the connection has {scheme}",
    "and": "{first}; {second}",
    "max_drop_percent": "the source has {part} records fewer than in the last success "
    "({percent} of {whole}, guard.max_drop_percent {limit})",
    "min_match_percent": "{part} of {whole} records are in the table ({percent}, guard.min_match_percent {limit})",
    "max_unmatched_percent": "{part} of {whole} table rows have an id that the source lacks "
    "({percent}, guard.max_unmatched_percent {limit})",
    "columns_changed": "the columns are not those of the last success (guard.same_columns): new {new}, gone {gone}",
    "columns_reordered": "the columns are in another order than in the last success (guard.same_columns)",
    "no_json_object": "is not a JSON object",
    "fields_missing": "lacks {names}",
    "webhook_no_url": "has a {name} that is not a URL",
    "password_line_end": "has a password with a line end around it, as a paste from a shell leaves one",
    "schema_no_string": "has a schema_name that is not a string",
    "ca_missing": "does not exist",
    "no_certificates": "holds no certificates in PEM form",
    "or": "{first} or {second}",
    "url_invalid": "JDBC_CONNECTION_URL is {url!r}, expected {expected}",
    "ca_uri_invalid": "Database.ca_uri (CUSTOM_JDBC_CERT) is {uri!r}, expected s3://bucket/bundle.pem",
    "ca_without_tls": "Database.ca_uri (CUSTOM_JDBC_CERT) is set, but enforce_ssl (JDBC_ENFORCE_SSL) is not true",
    "ca_needs_driver": "Database.ca_uri (CUSTOM_JDBC_CERT) needs the driver org.mariadb.jdbc.Driver",
    "ca_doubted": "Database.ca_uri (CUSTOM_JDBC_CERT) is set, and {names} in JDBC_CONNECTION_URL says how to verify",
    "no_records": "no records",
    "no_columns": "no columns",
    "array": "an array",
    "boolean": "a boolean",
    "null": "null",
    "string_or_number": "a string or number",
    "beginning": "it begins with {beginning}, expected '[' or '{{'",
    "gzip_broken": "broken gzip file ({reason})",
    "not_utf8": "not UTF-8 ({reason})",
    "not_json": "{text} is not JSON",
    "value_expected": "expected a value",
    "values_on_line": "more than one value on the line",
    "line_ends": "the line ends inside the record",
    "indented": "an object over several lines; if it holds an array of records, S3.records_at (--records_at) reads it",
    "array_ends": "the file ends inside an array or object",
    "path": "names joined by dots",
    "columns": 'a JSON list of columns, each a name or {{"from": "zip", "as": "postcode"}}',
    "columns_once": "each name of the output once ({name!r} is there twice)",
    "condition": "one SQL condition without ; and ?",
    "in_envelope": "expected {expected} in the object around the records (S3.records_at)",
    "no_array": "{name!r} is {kind}",
    "no_object": "{name!r} is {kind}, not an object",
    "no_member": "no {name!r} among its names: {names}",
    "twice": "{name!r} is there twice",
    "object": "an object",
    "after_record": "expected ',' or ']' after a record",
    "after_array": "something follows the end of the array",
    "record_too_large": "a record is larger than {limit} MiB",
    "nested": "nested too deeply",
    "nested_in": "nested too deeply in {name!r}",
    "surrogate_in": "half a surrogate pair in {name!r}",
    "surrogate_in_name": "half a surrogate pair in the name {name!r}",
    "connection_lost": "the connection was lost, or timed out",
    "row": "row {number}",
    "header": "header",
}

# What libraries say of a source, where it should be said otherwise: they speak English.
LIBRARY_WORDS: dict[str, str] = {}
