# The rules of data.tf, without AWS. Everything that is wrong is told in one plan, in these words.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "ap-northeast-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

variables {
  configs_file         = "tests/terraform/configs.json"
  common_settings_file = "tests/terraform/common_settings.json"
  credentials          = "{\"first\": {\"password\": \"p\", \"slack_webhook\": \"https://hooks.slack.com/services/T1/B1/t\"}, \"second\": {\"slack_webhook\": \"https://hooks.slack.com/services/T1/B1/t\"}}"
}

run "every_wrong_setting_is_named_in_one_plan" {
  command = plan
  variables {
    configs_file         = "tests/terraform/wrong_configs.json"
    common_settings_file = "tests/terraform/wrong_common_settings.json"
  }
  expect_failures = [
    terraform_data.settings,
    terraform_data.credentials,
    check.schedules_are_watched,
  ]
  assert {
    condition = tolist(local.errors) == tolist([
      "${var.common_settings_file}: connection.jdbc_driver.class_name is \"org.mariadb.Driver\": must be org.mariadb.jdbc.Driver or com.mysql.cj.jdbc.Driver",
      "${var.common_settings_file}: connection.jdbc_driver.jar_uri is \"nowhere.jar\": must be s3://bucket/driver.jar or a .jar file here (what Glue has may go without: com.mysql.cj.jdbc.Driver, from Glue 6.0 on org.mariadb.jdbc.Driver)",
      "${var.common_settings_file}: tags must be an object of at most 48 strings, without Project and ManagedBy, which are set here, and without names that begin with aws:",
      "${var.common_settings_file}: alarm_emails must be a list of e-mail addresses",
      "${var.common_settings_file}: kms_key_arns must be a list of ARNs of KMS keys",
      "${var.common_settings_file}: has alarm_topic_arn and alarm_emails; a topic that exists has subscribers of its own, so remove one of the two",
      "${var.configs_file}: configs.1st is no name that AWS takes: use 1 to 40 letters, digits, - and _, beginning with a letter",
      "${var.configs_file}: configs.a name is no name that AWS takes: use 1 to 40 letters, digits, - and _, beginning with a letter",
      "${var.configs_file}: configs.ca_unused has Database.ca_uri, which needs Database.enforce_ssl",
      "${var.configs_file}: configs.columns_empty has wrong columns: must be a list of names or of objects with from and as, each name of the output once",
      "${var.configs_file}: configs.columns_null has wrong columns: must be a list of names or of objects with from and as, each name of the output once",
      "${var.configs_file}: configs.columns_twice has wrong columns: must be a list of names or of objects with from and as, each name of the output once",
      "${var.configs_file}: configs.columns_without_as has wrong columns: must be a list of names or of objects with from and as, each name of the output once",
      "${var.configs_file}: configs.copied is written twice in the file; give each entry a name of its own",
      "${var.configs_file}: configs.dated_source would write its output over its source (S3.destination_file is one of the objects of S3.source_key)",
      "${var.configs_file}: configs.differences_over_source would write its list over its source (S3.differences_file is one of the objects of S3.source_key)",
      "${var.configs_file}: configs.flex runs FLEX, which needs the worker type G.1X or G.2X",
      "${var.configs_file}: configs.in_source_folder would write its output over its source (S3.destination_file is one of the objects of S3.source_key)",
      "${var.configs_file}: configs.list_over_source would write its list over its source (S3.unmatched_file is one of the objects of S3.source_key)",
      "${var.configs_file}: configs.not_an_object must be an object with SecretsManager, S3, slack and Database",
      "${var.configs_file}: configs.null_delimiter has csv.null \"n;a\", which holds csv.delimiter",
      "${var.configs_file}: configs.over_itself would write its output over its source (S3.destination_file is one of the objects of S3.source_key)",
      "${var.configs_file}: configs.schema_of_mysql has SecretsManager.schema_name, which only postgresql knows; the schema of mysql and mariadb is db_name",
      "${var.configs_file}: configs.starts_itself has on_arrival, and its own output, list or run report would start it again, as a * or date of S3.source_key matches across folders there; write them to another folder or bucket",
      "${var.configs_file}: configs.two_logins has secret_arn and SecretsManager.username or password; the login comes from the secret, so remove them",
      "${var.configs_file}: configs.Case and configs.case differ only in case, and IAM roles do not",
      "${var.configs_file}: configs.dated_twice and configs.dated_twice write the same output s3://lake/out/{mm}/dated_twice.csv",
      "${var.configs_file}: configs.list_over_output and configs.list_over_output write the same output s3://lake/out/list_over_output.csv",
      "${var.configs_file}: configs.twice_a and configs.twice_b write the same output s3://lake/out/twice.csv",
      "${var.common_settings_file}: Glue.glue_version is \"4.0\": must be 5.0, 5.1 or 6.0",
      "${var.common_settings_file}: Glue.number_of_workers is 300: must be a whole number from 2 to 299",
      "${var.common_settings_file}: alarm_topic_arn is \"me@example.com\": must be the ARN of an SNS topic",
      "${var.common_settings_file}: artifact_bucket is \"A\": must be the name of a bucket",
      "${var.common_settings_file}: connection.availability_zone is \"tokyo\": must be the availability zone of the subnet, such as ap-northeast-1a",
      "${var.common_settings_file}: connection.security_group_id is \"default\": must be the id of a security group (sg-...)",
      "${var.common_settings_file}: connection.subnet_id is \"subnet-1\": must be the id of a subnet (subnet-...)",
      "${var.common_settings_file}: dpu_hour_usd is \"0.44\": must be the price of a DPU-hour in USD, such as 0.44",
      "${var.common_settings_file}: kms_key_arn is \"alias/x\": must be the ARN of a KMS key",
      "${var.common_settings_file}: log_retention_days is 2: must be a retention that CloudWatch Logs has (1 3 5 7 14 30 60 90 120 150 180 365 400 545 731 1096 1827 ...)",
      "${var.common_settings_file}: permissions_boundary is \"none\": must be the ARN of a policy",
      "${var.common_settings_file}: project is \"Dev\": must be 2 to 19 lower-case letters, digits and -, beginning with a letter and not ending in -",
      "${var.common_settings_file}: role_arn is \"glue-role\": must be the ARN of a role",
      "${var.configs_file}: configs.alarm_duration.Monitoring.duration_change_percent is 0.5: must be a whole number of percent from 1 to 9999, or 0 for no such alarm",
      "${var.configs_file}: configs.alarm_hours.Monitoring.max_hours_between_successes is 169: must be a whole number of hours from 1 to 168, or 0 for no such alarm",
      "${var.configs_file}: configs.alarm_rows.Monitoring.row_change_percent is \"50\": must be a whole number of percent from 1 to 9999, or 0 for no such alarm",
      "${var.configs_file}: configs.bucket.S3.source_bucket is \"My_Bucket\": must be the name of a bucket",
      "${var.configs_file}: configs.ca_file.Database.ca_uri is \"ca.pem\": must be the S3 URI of a PEM file, such as s3://bucket/ap-northeast-1-bundle.pem",
      "${var.configs_file}: configs.count_text.count_overridden is \"yes\": must be true or false",
      "${var.configs_file}: configs.date_list.S3.unmatched_file is \"out/{YYYY}.csv\": must be the key of one object, without a leading or trailing / and without * ? $ <, with braces only as {yyyy} {mm} {dd} {hh}",
      "${var.configs_file}: configs.date_lone.S3.destination_file is \"out/{date_lone.csv\": must be the key of one object, without a leading or trailing / and without * ? $ <, with braces only as {yyyy} {mm} {dd} {hh}",
      "${var.configs_file}: configs.date_unknown.S3.source_key is \"in/{yy}.json\": must be the key of an object, a folder ending in / or a pattern with *, without a leading / and without $ <, with braces only as {yyyy} {mm} {dd} {hh}",
      "${var.configs_file}: configs.db_open.SecretsManager.db_name is \"<database>\": must be the name of a database (1 to 64 characters)",
      "${var.configs_file}: configs.dbtype.Database.dbtype is \"oracle\": must be mysql, mariadb or postgresql",
      "${var.configs_file}: configs.delimiter.csv.delimiter is \"||\": must be one character, or tab",
      "${var.configs_file}: configs.enabled_text.enabled is \"true\": must be true or false",
      "${var.configs_file}: configs.encoding.csv.encoding is \"sjis\": must be utf-8, utf-8-sig or cp932",
      "${var.configs_file}: configs.endpoint_with_port.Database.endpoint is \"db.example.com:3306\": must be the host name of the database, without scheme and port",
      "${var.configs_file}: configs.escape_text.csv.escape_formulas is \"on\": must be true or false",
      "${var.configs_file}: configs.execution.Glue.execution_class is \"SPOT\": must be STANDARD or FLEX",
      "${var.configs_file}: configs.folder_output.S3.destination_file is \"out/\": must be the key of one object, without a leading or trailing / and without * ? $ <, with braces only as {yyyy} {mm} {dd} {hh}",
      "${var.configs_file}: configs.guard_over.guard.max_drop_percent is 101: must be a whole number of percent from 0 to 100",
      "${var.configs_file}: configs.guard_text.guard.same_columns is \"yes\": must be true or false",
      "${var.configs_file}: configs.key_empty.key is \"\": must be the name of a column",
      "${var.configs_file}: configs.language.language is \"fr\": must be ja or en",
      "${var.configs_file}: configs.leading_slash.S3.source_key is \"/in/a.json\": must be the key of an object, a folder ending in / or a pattern with *, without a leading / and without $ <, with braces only as {yyyy} {mm} {dd} {hh}",
      "${var.configs_file}: configs.line_ending.csv.line_ending is \"cr\": must be lf or crlf",
      "${var.configs_file}: configs.list_folder.S3.unmatched_file is \"lists/\": must be the key of one object, without a leading or trailing / and without * ? $ <, with braces only as {yyyy} {mm} {dd} {hh}",
      "${var.configs_file}: configs.max_connections.Database.max_connections is 0: must be a whole number from 1 to 99999",
      "${var.configs_file}: configs.no_s3.S3.destination_bucket is missing: must be the name of a bucket",
      "${var.configs_file}: configs.no_s3.S3.destination_file is missing: must be the key of one object, without a leading or trailing / and without * ? $ <, with braces only as {yyyy} {mm} {dd} {hh}",
      "${var.configs_file}: configs.no_s3.S3.source_bucket is missing: must be the name of a bucket",
      "${var.configs_file}: configs.no_s3.S3.source_key is missing: must be the key of an object, a folder ending in / or a pattern with *, without a leading / and without $ <, with braces only as {yyyy} {mm} {dd} {hh}",
      "${var.configs_file}: configs.no_table.SecretsManager.table_name is missing: must be the name of a table (1 to 64 characters)",
      "${var.configs_file}: configs.notify.slack.notify is \"never\": must be always, on_change or on_failure",
      "${var.configs_file}: configs.null_quoted.csv.null is \"\\\"\": must be a text without quotes and line breaks",
      "${var.configs_file}: configs.port_high.Database.port is \"65536\": must be a port from 1 to 65535",
      "${var.configs_file}: configs.port_text.Database.port is \"mysql\": must be a port from 1 to 65535",
      "${var.configs_file}: configs.port_zero.Database.port is 0: must be a port from 1 to 65535",
      "${var.configs_file}: configs.quote.csv.quote is \"none\": must be minimal or all",
      "${var.configs_file}: configs.schedule_both_days.schedule is \"cron(0 18 * * MON *)\": must be a Glue cron expression in UTC, six fields with ? for one of the two days: cron(0 18 * * ? *) is 03:00 in Japan",
      "${var.configs_file}: configs.schedule_five.schedule is \"cron(0 18 * * ?)\": must be a Glue cron expression in UTC, six fields with ? for one of the two days: cron(0 18 * * ? *) is 03:00 in Japan",
      "${var.configs_file}: configs.schedule_hour.schedule is \"cron(0 24 * * ? *)\": must be a Glue cron expression in UTC, six fields with ? for one of the two days: cron(0 18 * * ? *) is 03:00 in Japan",
      "${var.configs_file}: configs.schedule_plain.schedule is \"0 18 * * ? *\": must be a Glue cron expression in UTC, six fields with ? for one of the two days: cron(0 18 * * ? *) is 03:00 in Japan",
      "${var.configs_file}: configs.schema_with_dot.SecretsManager.schema_name is \"app.x\": must be the name of a schema (1 to 63 characters)",
      "${var.configs_file}: configs.secret_arn_name.secret_arn is \"my-secret\": must be the ARN of a secret",
      "${var.configs_file}: configs.ssl_text.Database.enforce_ssl is \"yes\": must be true or false",
      "${var.configs_file}: configs.table_key.Database.table_key is \"\": must be the name of a column",
      "${var.configs_file}: configs.table_where.Database.table_where is \"a = 1; b = 2\": must be one SQL condition, without ; and ?",
      "${var.configs_file}: configs.timeout.Glue.timeout_minutes is 10081: must be a whole number of minutes from 1 to 10080",
      "${var.configs_file}: configs.version_zero.SecretsManager.credentials_version is 0: must be a whole number from 1; raise it when a password or webhook changed",
      "${var.configs_file}: configs.worker.Glue.worker_type is \"G.12X\": must be a worker type: G.1X G.2X G.4X G.8X",
      "${var.configs_file}: configs.workers.Glue.number_of_workers is 1: must be a whole number from 2 to 299",
      "${var.configs_file}: configs.zone.timezone is \"JST\": must be the IANA name of a time zone, such as Asia/Tokyo or UTC",
      "${var.configs_file}: extra is unknown; known here: configs",
      "${var.common_settings_file}: connection.jdbc_driver.url is unknown; known here: class_name, jar_uri",
      "${var.common_settings_file}: retention is unknown; known here: Glue, alarm_emails, alarm_topic_arn, artifact_bucket, connection, dpu_hour_usd, kms_key_arn, kms_key_arns, log_retention_days, permissions_boundary, project, role_arn, tags",
      "${var.common_settings_file}: Glue.workers is unknown; known here: glue_version, number_of_workers, timeout_minutes, worker_type",
      "${var.configs_file}: configs.typo.schedul is unknown; known here: Database, Glue, Monitoring, S3, SecretsManager, columns, count_overridden, csv, enabled, guard, key, language, on_arrival, schedule, secret_arn, slack, timezone",
      "${var.configs_file}: configs.typo_inside.S3.sorce_key is unknown; known here: destination_bucket, destination_file, differences_file, records_at, source_bucket, source_key, unmatched_file",
    ])
    error_message = "found ${jsonencode(local.errors)}"
  }
}

run "the_example_tells_what_to_fill_in" {
  command = plan
  variables {
    configs_file         = "tests/terraform/example/configs.json"
    common_settings_file = "tests/terraform/example/common_settings.json"
    credentials          = "{}"
  }
  expect_failures = [
    terraform_data.settings,
    terraform_data.credentials,
  ]
  assert {
    condition     = length(local.errors) == 7
    error_message = "found ${jsonencode(local.errors)}"
  }
}

run "a_password_that_was_never_filled_in_is_refused" {
  command = plan
  variables {
    credentials = "{\"first\": {\"slack_webhook\": \"https://hooks.slack.com/services/T1/B1/t\"}, \"second\": {\"slack_webhook\": \"https://hooks.slack.com/services/T1/B1/t\"}}"
  }
  expect_failures = [terraform_data.credentials["first"]]
}

run "a_webhook_that_was_never_filled_in_is_refused" {
  command = plan
  variables {
    credentials = "{\"first\": {\"password\": \"p\", \"slack_webhook\": \"https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX\"}, \"second\": {\"slack_webhook\": \"\"}}"
  }
  expect_failures = [terraform_data.credentials["first"]]
}

run "each_webhook_that_was_never_filled_in_is_refused" {
  command = plan
  variables {
    credentials = "{\"first\": {\"password\": \"p\", \"slack_webhook\": \"\", \"teams_webhook\": \"<webhook>\"}, \"second\": {\"slack_webhook\": \"\", \"json_webhook\": \"example.com/hook\"}}"
  }
  expect_failures = [terraform_data.credentials["first"], terraform_data.credentials["second"]]
}

run "teams_and_a_program_may_be_told_instead_of_slack" {
  command = plan
  variables {
    credentials = "{\"first\": {\"password\": \"p\", \"slack_webhook\": \"\", \"teams_webhook\": \"https://x.example/workflows/1/invoke?sig=s\"}, \"second\": {\"slack_webhook\": \"\", \"json_webhook\": \"https://example.com/hook\"}}"
  }
}

run "a_webhook_that_would_never_be_used_is_refused" {
  command = plan
  variables {
    credentials = "{\"first\": {\"password\": \"p\", \"slack_webhook\": \"https://hooks.slack.com/services/T1/B1/t\"}, \"second\": {\"slack_webhook\": \"\"}, \"third\": {\"slack_webhook\": \"https://hooks.slack.com/services/T1/B1/t\"}}"
  }
  expect_failures = [terraform_data.credentials["third"]]
}

run "a_teams_webhook_that_would_never_be_used_is_refused" {
  command = plan
  variables {
    credentials = "{\"first\": {\"password\": \"p\", \"slack_webhook\": \"\"}, \"second\": {\"slack_webhook\": \"\"}, \"third\": {\"teams_webhook\": \"https://x.example/workflows/1/invoke?sig=s\"}}"
  }
  expect_failures = [terraform_data.credentials["third"]]
}

run "credentials_that_are_no_json_are_refused" {
  command = plan
  variables {
    credentials = "{'first': hunter2}"
  }
  expect_failures = [var.credentials]
}

run "credentials_with_an_unknown_field_are_refused" {
  command = plan
  variables {
    credentials = "{\"first\": {\"passwort\": \"hunter2\"}}"
  }
  expect_failures = [var.credentials]
}

run "a_ca_that_the_driver_cannot_use_is_refused" {
  command = plan
  variables {
    common_settings_file = "tests/terraform/mysql_common_settings.json"
  }
  expect_failures = [terraform_data.settings]
  assert {
    condition     = local.errors == ["${var.configs_file}: configs.first has Database.ca_uri, which needs the driver org.mariadb.jdbc.Driver (${var.common_settings_file}: connection.jdbc_driver)"]
    error_message = "found ${jsonencode(local.errors)}"
  }
}

run "a_zone_of_another_region_is_refused" {
  command = plan
  override_data {
    target = data.aws_region.current
    values = { name = "us-east-1" }
  }
  expect_failures = [data.aws_region.current]
}

run "glue_6_has_the_driver_of_mariadb_itself" {
  command = plan
  variables {
    common_settings_file = "tests/terraform/glue_6_common_settings.json"
  }
  assert {
    condition     = aws_glue_job.pipeline["second"].glue_version == "6.0" && aws_glue_connection.pipeline["second"].connection_properties["JDBC_DRIVER_CLASS_NAME"] == "org.mariadb.jdbc.Driver"
    error_message = "The driver is still named."
  }
  assert {
    condition     = !contains(keys(aws_glue_job.pipeline["second"].default_arguments), "--extra-jars") && !contains(keys(aws_glue_connection.pipeline["second"].connection_properties), "JDBC_DRIVER_JAR_URI")
    error_message = "Another version of the driver must not lie beside Glue's own."
  }
}

run "an_entry_becomes_one_pipeline" {
  command = plan

  assert {
    condition     = aws_glue_job.pipeline["first"].name == "job-first" && aws_glue_job.pipeline["first"].timeout == 60 && aws_glue_job.pipeline["first"].job_run_queuing_enabled
    error_message = "The shared Glue settings apply."
  }
  assert {
    condition     = aws_glue_connection.pipeline["first"].name == "connection-first" && aws_glue_job.pipeline["first"].connections == tolist(["connection-first"]) && aws_secretsmanager_secret.pipeline["first"].name_prefix == "rds-secret-first-"
    error_message = "Connection and secret are named by the entry."
  }
  assert {
    condition     = aws_iam_role.pipeline["first"].name == "rds-glue-s3-etl-job-first"
    error_message = "A role is named by the project, which bounds what CI may do."
  }
  assert {
    condition     = sort(concat([aws_glue_job.pipeline["first"].command[0].script_location], split(",", aws_glue_job.pipeline["first"].default_arguments["--extra-py-files"]))) == sort([for object in aws_s3_object.code : "s3://${object.bucket}/${object.key}"])
    error_message = "A job names each object of the code once."
  }
  assert {
    condition     = aws_glue_job.pipeline["second"].worker_type == "G.2X" && aws_glue_job.pipeline["second"].execution_class == "FLEX" && !aws_glue_job.pipeline["second"].job_run_queuing_enabled
    error_message = "The Glue settings of an entry win, and FLEX has no queuing."
  }
  assert {
    condition     = aws_glue_job.pipeline["first"].max_retries == 0 && aws_glue_job.pipeline["first"].execution_property[0].max_concurrent_runs == 1
    error_message = "One run at a time, none repeated."
  }
  assert {
    condition     = aws_glue_trigger.pipeline["first"].enabled && !aws_glue_trigger.pipeline["second"].enabled
    error_message = "enabled = false pauses the schedule."
  }
  assert {
    condition     = aws_glue_connection.pipeline["second"].connection_properties["JDBC_CONNECTION_URL"] == "jdbc:mysql://db.example.com:3307/shop?permitMysqlScheme"
    error_message = "MariaDB keeps the scheme of MySQL, which Connector/J 3 must be told."
  }
  assert {
    condition = aws_glue_connection.pipeline["third"].connection_properties == tomap({
      JDBC_CONNECTION_URL    = "jdbc:postgresql://pg.example.com:5432/shop"
      JDBC_DRIVER_CLASS_NAME = "org.postgresql.Driver"
      JDBC_ENFORCE_SSL       = "true"
      SECRET_ID              = "arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:rds!db-ghijkl"
    }) && !contains(keys(aws_glue_job.pipeline["third"].default_arguments), "--extra-jars")
    error_message = "PostgreSQL has the driver that Glue brings."
  }
  assert {
    condition     = aws_glue_job.pipeline["third"].default_arguments["--schema_name"] == "sales" && !contains(keys(aws_glue_job.pipeline["second"].default_arguments), "--schema_name")
    error_message = "A schema is told where an entry names one."
  }
  assert {
    condition     = aws_glue_connection.pipeline["first"].connection_properties["JDBC_ENFORCE_SSL"] == "true" && aws_glue_connection.pipeline["second"].connection_properties["JDBC_ENFORCE_SSL"] == "false"
    error_message = "TLS unless an entry says otherwise."
  }
  assert {
    condition     = aws_glue_connection.pipeline["first"].connection_properties["CUSTOM_JDBC_CERT"] == "s3://ca/rds/ap-northeast-1-bundle.pem" && !can(aws_glue_connection.pipeline["second"].connection_properties["CUSTOM_JDBC_CERT"])
    error_message = "The CA bundle is the connection's, where there is one."
  }
  assert {
    condition     = aws_glue_connection.pipeline["first"].connection_properties["SKIP_CUSTOM_JDBC_CERT_VALIDATION"] == "true" && !can(aws_glue_connection.pipeline["second"].connection_properties["SKIP_CUSTOM_JDBC_CERT_VALIDATION"])
    error_message = "The driver verifies by it, not Glue."
  }
  assert {
    condition     = keys(aws_cloudwatch_event_rule.arrival) == ["third"] && jsondecode(aws_cloudwatch_event_rule.arrival["third"].event_pattern).detail == { bucket = { name = ["lake"] }, object = { key = ["in/third.json"] } }
    error_message = "A run starts on arrival where an entry asks for it and is not paused."
  }
  assert {
    condition     = local.login_secrets["second"] == "arn:aws:secretsmanager:ap-northeast-1:123456789012:secret:rds!db-abcdef"
    error_message = "secret_arn is used as the login."
  }
  assert {
    condition     = local.pipelines["first"].options == { "--key" = "code", "--language" = "en", "--csv_encoding" = "cp932", "--csv_escape_formulas" = "true", "--guard_max_drop_percent" = "50", "--guard_same_columns" = "true" }
    error_message = "Options become job arguments."
  }
  assert {
    condition     = local.pipelines["second"].options == { "--unmatched_file" = "out/second-unmatched.csv", "--differences_file" = "out/second-differences.csv", "--count_overridden" = "false", "--notify" = "on_change" }
    error_message = "So do those of sections."
  }
  assert {
    condition     = local.pipelines["third"].options == { "--table_key" = "order_id", "--table_where" = "deleted_at IS NULL AND price < 5", "--columns" = "[\"id\",{\"as\":\"postcode\",\"from\":\"zip\"}]" }
    error_message = "Columns become JSON."
  }
  assert {
    condition     = [for rule in aws_cloudwatch_event_rule.failed : jsondecode(rule.event_pattern).detail.jobName] == [["job-first", "job-second", "job-third"]]
    error_message = "One rule hears of all jobs."
  }
  assert {
    condition     = length(aws_sns_topic.alarms) == 0 && [for target in aws_cloudwatch_event_target.failed : target.arn] == ["arn:aws:sns:ap-northeast-1:123456789012:alarms"]
    error_message = "alarm_topic_arn stands in for a topic of our own."
  }
  assert {
    condition     = { for name, alarm in aws_cloudwatch_metric_alarm.no_success : name => alarm.evaluation_periods } == { first = 74 }
    error_message = "As many hours as the entry says; second is paused."
  }
  assert {
    condition     = { for name, alarm in aws_cloudwatch_metric_alarm.change : name => [alarm.threshold, alarm.evaluation_periods] } == { "first/duration" = [200, 4], "first/rows" = [50, 4] }
    error_message = "Friday is within what Monday is compared with."
  }
  assert {
    condition     = format("%.8f %.8f", local.run_prices["first"], local.run_prices["second"]) == "0.00024444 0.00161333"
    error_message = "2 x 1 DPU, and 10 x 2 DPU in FLEX, at 0.44 USD an hour."
  }
}

run "every_form_of_a_schedule_is_taken_and_alarms_are_those_an_entry_asks_for" {
  command = plan
  variables {
    configs_file = "tests/terraform/schedules.json"
    credentials  = "{}"
  }
  expect_failures = [check.schedules_are_watched]

  assert {
    condition = { for name, rule in aws_cloudwatch_event_rule.arrival : name => jsondecode(rule.event_pattern).detail.object.key } == {
      arrives_in_a_folder  = [{ prefix = "in/b/" }]
      arrives_by_a_pattern = [{ wildcard = "in/c-*.json" }]
      arrives_by_date      = [{ wildcard = "in/*/*/*" }]
    }
    error_message = "What arrives is what source_key means."
  }
  assert {
    condition     = local.unwatched == ["monthly", "third_monday"]
    error_message = "A schedule without max_hours_between_successes is told, unless it is paused: ${jsonencode(local.unwatched)}"
  }
  assert {
    condition = { for name in ["daily", "hourly", "weekdays", "weekly", "monthly_told_168", "started_by_others"] : name => [aws_cloudwatch_metric_alarm.no_success[name].evaluation_periods, local.change_days[name]] } == {
      daily             = [26, 2]
      hourly            = [3, 2]
      weekdays          = [74, 4]
      weekly            = [168, 7]
      monthly_told_168  = [168, 7]
      started_by_others = [48, 3]
    }
    error_message = "Hours without a success as they are given; changes are told from the day of the run before."
  }
  assert {
    condition     = !anytrue([for name in ["monthly", "paused", "told_of_nothing"] : contains(concat(keys(aws_cloudwatch_metric_alarm.no_success), keys(local.change_days)), name)])
    error_message = "No alarm unless an entry asks for it."
  }
  assert {
    condition     = { for name, alarm in aws_cloudwatch_metric_alarm.change : name => alarm.threshold if startswith(name, "told") } == { "told_of_little/duration" = 500, "told_of_little/rows" = 10 }
    error_message = "An entry has its own limits."
  }
  assert {
    condition = { for name in ["daily", "monthly", "paused"] : name => output.jobs[name].alarms } == {
      daily   = ["no success for 26 hours", "duration changes by more than 200 %", "rows changes by more than 50 %"]
      monthly = ["no alarm: no Monitoring.max_hours_between_successes"]
      paused  = ["no alarm: the entry is not enabled"]
    }
    error_message = "found ${jsonencode({ for name, job in output.jobs : name => job.alarms })}"
  }
  assert {
    condition     = tolist(flatten([for rule in aws_cloudwatch_event_rule.failed : jsondecode(rule.event_pattern).detail.jobName])) == sort([for name in keys(local.pipelines) : "job-${name}"]) && length(aws_cloudwatch_event_rule.failed) == 2
    error_message = "Each job is in one rule."
  }
}

run "a_role_allows_the_keys_of_any_day_and_no_more" {
  command = plan
  variables {
    configs_file = "tests/terraform/schedules.json"
    credentials  = "{}"
  }
  override_resource {
    target          = aws_kms_key.pipelines
    override_during = plan
    values          = { arn = "arn:aws:kms:ap-northeast-1:123456789012:key/ours" }
  }
  expect_failures = [check.schedules_are_watched]

  assert {
    condition     = local.pipelines["arrives_by_date"].options == { "--timezone" = "UTC", "--unmatched_file" = "out/{yyyy}-{mm}-ids.csv" } && aws_glue_job.pipeline["arrives_by_date"].default_arguments["--source_key"] == "in/{yyyy}/{mm}{dd}/"
    error_message = "The job fills the dates, in the zone of the entry."
  }
  assert {
    condition = jsonencode({ for name in ["arrives_by_date", "arrives_in_a_folder"] : name => [for statement in jsondecode(aws_iam_role_policy.pipeline[name].policy).Statement : [statement.Resource, try(statement.Condition, {})] if contains(["ReadSource", "ListSource", "FindDestination", "WriteDestination", "KeepReport"], statement.Sid)] }) == jsonencode({
      arrives_by_date = [
        [["arn:aws:s3:::lake/in/????/????/*"], {}],
        [["arn:aws:s3:::lake"], { StringLike = { "s3:prefix" = "in/????/????/" } }],
        [["arn:aws:s3:::lake"], { StringLike = { "s3:prefix" = ["out/????-??.csv", "out/????-??-ids.csv"] } }],
        [["arn:aws:s3:::lake/out/????-??.csv", "arn:aws:s3:::lake/out/????-??-ids.csv"], {}],
        [[for report in ["report.json", "report.html", "dry-run.report.json", "dry-run.report.html"] : "arn:aws:s3:::lake/out/yyyy-mm.csv.${report}"], {}],
      ]
      arrives_in_a_folder = [
        [["arn:aws:s3:::lake/in/b/*"], {}],
        [["arn:aws:s3:::lake"], { StringEquals = { "s3:prefix" = "in/b/" } }],
        [["arn:aws:s3:::lake"], { StringEquals = { "s3:prefix" = ["out/arrives_in_a_folder"] } }],
        [["arn:aws:s3:::lake/out/arrives_in_a_folder"], {}],
        [[for report in ["report.json", "report.html", "dry-run.report.json", "dry-run.report.html"] : "arn:aws:s3:::lake/out/arrives_in_a_folder.${report}"], {}],
      ]
    })
    error_message = "found ${aws_iam_role_policy.pipeline["arrives_by_date"].policy}"
  }
}

run "a_project_has_names_of_its_own" {
  command = plan
  variables {
    common_settings_file = "tests/terraform/dev_common_settings.json"
  }
  assert {
    condition = [
      aws_glue_job.pipeline["first"].name,
      aws_glue_connection.pipeline["first"].name,
      aws_glue_trigger.pipeline["first"].name,
      aws_secretsmanager_secret.pipeline["first"].name_prefix,
      aws_iam_role.pipeline["first"].name,
      aws_cloudwatch_log_group.pipeline["first/output"].name,
      aws_cloudwatch_metric_alarm.no_success["first"].alarm_name,
      aws_kms_alias.pipelines[0].name,
      aws_s3_bucket.artifacts[0].bucket,
      aws_cloudwatch_event_rule.failed[0].name,
      aws_cloudwatch_dashboard.pipelines.dashboard_name,
      ] == [
      "dev-job-first",
      "dev-connection-first",
      "dev-job-first-schedule",
      "dev-rds-secret-first-",
      "dev-job-first",
      "/aws-glue/jobs/dev-job-first/output",
      "dev-job-first-no-success",
      "alias/dev",
      "dev-123456789012-ap-northeast-1",
      "dev-failed-1",
      "dev",
    ]
    error_message = "Two deployments of one account share no name."
  }
}
