# Reads the two JSON files and checks them. Every error is reported in one plan, by terraform_data.settings, and no
# pipeline is planned while there is one.

locals {
  configs_text = file(var.configs_file)
  configs_json = jsondecode(local.configs_text)
  common_json  = jsondecode(file(var.common_settings_file))
  entries      = try({ for name, entry in local.configs_json.configs : name => entry }, {})

  # What editors check by is what is checked here: fields, types, patterns and limits are the schemas', and so is `x-rule`,
  # how people are told. Beside it stand below the rules between fields or entries.
  schemas = {
    entry  = jsondecode(file("${path.root}/schemas/configs.schema.json")).properties.configs.additionalProperties
    common = jsondecode(file("${path.root}/schemas/common_settings.schema.json"))
  }
  known  = { for kind, schema in local.schemas : kind => [for name in keys(schema.properties) : name if name != "$schema"] }
  fields = { for kind, schema in local.schemas : kind => { for name, field in schema.properties : name => keys(field.properties) if can(field.properties) } }
  # By `<section>.<field>` or, of the top level, `<field>`. Secrets are checked further down, where nothing can quote them.
  rules = {
    for kind, schema in local.schemas : kind => merge(
      { for name, field in schema.properties : name => merge(field, { need = false }) if can(field["x-rule"]) },
      [
        for section, group in schema.properties : {
          for name, field in group.properties : "${section}.${name}" => merge(field, { need = contains(try(group.required, []), name) }) if can(field["x-rule"])
        } if can(group.properties)
      ]...
    )
  }

  # What was never filled in.
  placeholder = "(?i)^(<.*>|change[-_ ]?me.*|replace[-_ ]?me.*|your[-_ ].*|x{3,}|\\*{3,}|placeholder|todo|https://hooks\\.slack\\.com/services/(.*(x{8,}|<).*|t0+/.*))?$"
}

locals {
  # What is checked: the shared settings, then each entry.
  documents = concat(
    [{ file = var.common_settings_file, at = "", value = local.common_json, kind = "common" }],
    [for name, entry in local.entries : { file = var.configs_file, at = "configs.${name}.", value = entry, kind = "entry" }],
  )

  rule_findings = flatten([
    for document in local.documents : [
      for path, rule in local.rules[document.kind] : {
        at    = "${document.file}: ${document.at}${path}"
        rule  = rule
        value = try(document.value[split(".", path)[0]][split(".", path)[1]], document.value[path], null)
      }
    ] if can(keys(document.value))
  ])
  rule_errors = [
    for found in local.rule_findings : join("", [
      found.at,
      # jsonencode writes < and > as escapes.
      found.value == null ? " is missing" : " is ${replace(replace(jsonencode(found.value), "\\u003c", "<"), "\\u003e", ">")}",
      ": ${found.rule["x-rule"]}",
    ])
    if found.value == null ? found.rule.need : !alltrue([
      {
        string  = try(found.value == tostring(found.value), false)
        integer = try(found.value == floor(found.value), false)
        number  = try(found.value == tonumber(found.value), false)
        boolean = try(found.value == tobool(found.value), false)
        either  = can(tostring(found.value))
      }[try(tostring(found.rule.type), "either")],
      !can(found.rule.pattern) || can(regex(found.rule.pattern, found.value)),
      !can(found.rule.minimum) || try(found.value >= found.rule.minimum, false),
      !can(found.rule.maximum) || try(found.value <= found.rule.maximum, false),
      !can(found.rule.enum) || try(contains(found.rule.enum, found.value), false),
    ])
  ]

  unknown_fields = concat(
    [for field in setsubtract(try(keys(local.configs_json), []), ["configs", "$schema"]) : "${var.configs_file}: ${field} is unknown; known here: configs"],
    [
      for field in setsubtract(try(keys(local.common_json.connection.jdbc_driver), []), keys(local.schemas.common.properties.connection.properties.jdbc_driver.properties)) :
      "${var.common_settings_file}: connection.jdbc_driver.${field} is unknown; known here: class_name, jar_uri"
    ],
    flatten([for document in local.documents : concat(
      [
        for field in setsubtract(try(keys(document.value), []), concat(local.known[document.kind], document.kind == "common" ? ["$schema"] : [])) :
        "${document.file}: ${document.at}${field} is unknown; known here: ${join(", ", local.known[document.kind])}"
      ],
      flatten([
        for section, fields in local.fields[document.kind] : [
          for field in setsubtract(try(keys(document.value[section]), []), fields) :
          "${document.file}: ${document.at}${section}.${field} is unknown; known here: ${join(", ", fields)}"
        ]
      ]),
    )]),
  )

  written_fields = ["destination_file", "unmatched_file", "differences_file"] # of S3

  # The keys on any day, a ? for each digit of a date: {yyyy}, {mm}, {dd}, {hh} (overlay/dates.py).
  key_patterns = {
    for name, entry in local.entries : name => {
      for field in concat(["source_key"], local.written_fields) :
      field => replace(replace(entry.S3[field], "{yyyy}", "????"), "/[{](mm|dd|hh)[}]/", "??") if can("${entry.S3[field]}")
    }
  }
  # The reports of runs lie beside this key, the same on every day.
  undated_files = { for name, entry in local.entries : name => replace(entry.S3.destination_file, "/[{}]/", "") if can("${entry.S3.destination_file}") }

  written = flatten([
    for name, entry in local.entries : [
      for field in local.written_fields : {
        name    = name
        place   = "s3://${entry.S3.destination_bucket}/${entry.S3[field]}"
        pattern = "${entry.S3.destination_bucket}/${local.key_patterns[name][field]}"
      } if can("${entry.S3.destination_bucket}${entry.S3[field]}")
    ]
  ])
  destinations  = { for item in local.written : item.pattern => item... }
  names_by_case = { for name, entry in local.entries : lower(name) => name... }
  # A copied entry that kept its name would replace the first one without a word.
  written_twice = [for name in keys(local.entries) : name if length(regexall("\"${name}\"\\s*:\\s*\\{", local.configs_text)) > 1 && can(regex("^[A-Za-z0-9_-]*$", name))]

  # Scheduled, and no word on whether anybody is to hear that it no longer runs.
  unwatched = [for name, entry in local.entries : name if can(entry.schedule) && try(entry.enabled, true) && !can(entry.Monitoring.max_hours_between_successes)]

  # source_key as a regular expression: below a folder, or * within one (overlay/settings.py, is_source_key).
  source_patterns = {
    for name, patterns in local.key_patterns : name => format("^%s%s$",
      replace(replace(replace(patterns.source_key, "/([^A-Za-z0-9\\/_*-])/", "\\$1"), "*", "[^/]*"), "\\?", "[0-9?]"),
      endswith(patterns.source_key, "/") ? ".*" : "",
    ) if can(patterns.source_key)
  }
  # What on_arrival hears of: to EventBridge a * crosses folders, and a date is one (arrival.tf).
  arrival_patterns = {
    for name, patterns in local.key_patterns : name => format("^%s%s$",
      replace(replace(patterns.source_key, "/([^A-Za-z0-9\\/_*?-])/", "\\$1"), "/[*?]+/", ".*"),
      endswith(patterns.source_key, "/") ? ".*" : "",
    ) if can(patterns.source_key)
  }

  entry_errors = flatten([
    for name, entry in local.entries : [
      for error in concat([
        { wrong = !can(regex("^[A-Za-z][A-Za-z0-9_-]{0,39}$", name)), text = "is no name that AWS takes: use 1 to 40 letters, digits, - and _, beginning with a letter" },
        { wrong = !can(keys(entry)), text = "must be an object with SecretsManager, S3, slack and Database" },
        { wrong = contains(local.written_twice, name), text = "is written twice in the file; give each entry a name of its own" },
        {
          wrong = try(entry.on_arrival && entry.S3.source_bucket == entry.S3.destination_bucket, false) && anytrue([
            for key in concat([for field in local.written_fields : try(local.key_patterns[name][field], "")], [try("${local.undated_files[name]}.report.json", ""), try("${local.undated_files[name]}.report.html", "")]) :
            try(can(regex(local.arrival_patterns[name], key)), false)
          ])
          text = "has on_arrival, and its own output, list or run report would start it again, as a * or date of S3.source_key matches across folders there; write them to another folder or bucket"
        },
        {
          wrong = try(entry.Glue.execution_class == "FLEX" && !contains(["G.1X", "G.2X"], try(entry.Glue.worker_type, local.common_json.Glue.worker_type)), false)
          text  = "runs FLEX, which needs the worker type G.1X or G.2X"
        },
        {
          wrong = try(entry.secret_arn != null, false) && (try(entry.SecretsManager.username != null, false) || try(entry.SecretsManager.password != null, false))
          text  = "has secret_arn and SecretsManager.username or password; the login comes from the secret, so remove them"
        },
        {
          wrong = try(entry.SecretsManager.schema_name != null && entry.Database.dbtype != "postgresql", false)
          text  = "has SecretsManager.schema_name, which only postgresql knows; the schema of mysql and mariadb is db_name"
        },
        {
          wrong = try(entry.Database.ca_uri != null && entry.Database.enforce_ssl == false, false)
          text  = "has Database.ca_uri, which needs Database.enforce_ssl"
        },
        {
          wrong = try(entry.Database.ca_uri != null, false) && (try(entry.Database.dbtype == "postgresql", false) || local.driver.class_name == "com.mysql.cj.jdbc.Driver")
          text  = "has Database.ca_uri, which needs the driver org.mariadb.jdbc.Driver (${var.common_settings_file}: connection.jdbc_driver)"
        },
        {
          wrong = can(entry.columns) && !try(length(entry.columns) > 0 && alltrue([
            for column in entry.columns : try(column == tostring(column) && length(column) > 0, sort(keys(column)) == tolist(["as", "from"]) && alltrue([for text in values(column) : text == tostring(text) && length(text) > 0]))
          ]) && length(distinct([for column in entry.columns : try(column.as, column)])) == length(entry.columns), false)
          text = "has wrong columns: must be a list of names or of objects with from and as, each name of the output once"
        },
        {
          wrong = try(strcontains(entry.csv.null, entry.csv.delimiter), false)
          text  = "has csv.null ${try(jsonencode(entry.csv.null), "")}, which holds csv.delimiter"
        },
        ], [
        for field in local.written_fields : {
          wrong = try(entry.S3.source_bucket == entry.S3.destination_bucket && can(regex(local.source_patterns[name], local.key_patterns[name][field])), false)
          text  = "would write its ${field == "destination_file" ? "output" : "list"} over its source (S3.${field} is one of the objects of S3.source_key)"
        }
      ]) : "${var.configs_file}: configs.${name} ${error.text}" if error.wrong
    ]
  ])

  # Glue brings the driver of PostgreSQL, so one has to be named for the other databases alone.
  names_driver = can(local.common_json.connection.jdbc_driver) || !alltrue([for entry in values(local.entries) : try(entry.Database.dbtype == "postgresql", false)])
  driver_class = try(tostring(local.common_json.connection.jdbc_driver.class_name), "")
  # From 6.0 on Glue has MariaDB's driver itself, and another version must not lie beside it on the class path.
  glue_has_mariadb = local.driver_class == "org.mariadb.jdbc.Driver" && try(local.common_json.Glue.glue_version == "6.0", false)
  driver = {
    class_name = local.driver_class
    jar_uri    = local.glue_has_mariadb ? "" : try(tostring(local.common_json.connection.jdbc_driver.jar_uri), "")
  }
  # The subnets by their zones; the job's connections are listed in this order.
  subnets = concat(
    [{ subnet_id = try(local.common_json.connection.subnet_id, ""), availability_zone = try(local.common_json.connection.availability_zone, "") }],
    try([for subnet in tolist(local.common_json.connection.further_subnets) : { subnet_id = tostring(subnet.subnet_id), availability_zone = tostring(subnet.availability_zone) }], []),
  )
  common_errors = [
    for error in [
      { wrong = !can(keys(local.common_json)), text = "must hold an object with Glue and connection" },
      {
        wrong = local.names_driver && !contains(["org.mariadb.jdbc.Driver", "com.mysql.cj.jdbc.Driver"], local.driver.class_name)
        text  = "connection.jdbc_driver.class_name is \"${local.driver.class_name}\": must be org.mariadb.jdbc.Driver or com.mysql.cj.jdbc.Driver"
      },
      {
        wrong = local.names_driver && !can(regex("^s3://[a-z0-9][a-z0-9.-]+/.+\\.jar$", local.driver.jar_uri)) && !(endswith(local.driver.jar_uri, ".jar") && try(fileexists(local.driver.jar_uri), false)) && !(local.driver.jar_uri == "" && (local.glue_has_mariadb || local.driver_class == "com.mysql.cj.jdbc.Driver"))
        text  = "connection.jdbc_driver.jar_uri is \"${local.driver.jar_uri}\": must be s3://bucket/driver.jar or a .jar file here (what Glue has may go without: com.mysql.cj.jdbc.Driver, from Glue 6.0 on org.mariadb.jdbc.Driver)"
      },
      {
        wrong = can(local.common_json.connection.further_subnets) && !alltrue(try([
          for subnet in tolist(local.common_json.connection.further_subnets) : alltrue([for field, value in subnet : can(regex(local.rules.common["connection.${field}"].pattern, value))]) && sort(keys(subnet)) == tolist(["availability_zone", "subnet_id"])
        ], [false]))
        text = "connection.further_subnets must be a list of objects, each with subnet_id and availability_zone as above"
      },
      {
        wrong = length(distinct(local.subnets[*].availability_zone)) < length(local.subnets)
        text  = "connection.further_subnets has a subnet in a zone that another one is in"
      },
      {
        # AWS takes 50, of which two are ours.
        wrong = !alltrue(try([for name in keys(local.common_json.tags) : local.common_json.tags[name] == tostring(local.common_json.tags[name]) && !can(regex("^(?i:aws:)|^(Project|ManagedBy)$", name))], [!can(local.common_json.tags)])) || length(try(local.common_json.tags, {})) > 48
        text  = "tags must be an object of at most 48 strings, without Project and ManagedBy, which are set here, and without names that begin with aws:"
      },
      {
        wrong = !alltrue(try([for email in local.common_json.alarm_emails : can(regex("^[^@\\s<>]+@[^@\\s<>]+$", email))], [!can(local.common_json.alarm_emails)]))
        text  = "alarm_emails must be a list of e-mail addresses"
      },
      {
        wrong = !alltrue(try([for arn in local.common_json.kms_key_arns : can(regex(local.rules.common["kms_key_arn"].pattern, arn))], [!can(local.common_json.kms_key_arns)]))
        text  = "kms_key_arns must be a list of ARNs of KMS keys"
      },
      {
        wrong = can(local.common_json.alarm_topic_arn) && can(local.common_json.alarm_emails)
        text  = "has alarm_topic_arn and alarm_emails; a topic that exists has subscribers of its own, so remove one of the two"
      },
    ] : "${var.common_settings_file}: ${error.text}" if error.wrong
  ]

  errors = concat(
    length(local.entries) == 0 ? ["${var.configs_file}: configs must be an object with one entry per pipeline"] : [],
    local.common_errors,
    local.entry_errors,
    [for names in values(local.names_by_case) : "${var.configs_file}: configs.${join(" and configs.", names)} differ only in case, and IAM roles do not" if length(names) > 1],
    [for items in values(local.destinations) : "${var.configs_file}: configs.${join(" and configs.", items[*].name)} write the same output ${items[0].place}" if length(items) > 1],
    local.rule_errors,
    local.unknown_fields,
  )

  # The secrets of each entry: TF_VAR_credentials, else configs.json. Sensitive, so that no message quotes them.
  credentials = jsondecode(coalesce(var.credentials, "{}"))
  webhooks    = ["slack_webhook", "teams_webhook", "json_webhook"]
  logins = {
    for name, entry in local.entries : name => {
      username = sensitive(try(local.credentials[name].username, entry.SecretsManager.username, ""))
      password = sensitive(try(local.credentials[name].password, entry.SecretsManager.password, ""))
      webhooks = { for field in local.webhooks : field => sensitive(try(local.credentials[name][field], entry.slack[field], "")) }
    }
  }
  has_own_login = { for name, entry in local.entries : name => !can(regex(".", entry.secret_arn)) }
  has_login = {
    for name, login in local.logins : name =>
    !local.has_own_login[name] || !can(regex(local.placeholder, login.username)) && !can(regex(local.placeholder, login.password))
  }
  has_webhooks = {
    for name, login in local.logins : name => alltrue([
      for url in values(login.webhooks) : url == "" || !can(regex(local.placeholder, url)) && can(regex("^https?://[^/]+/.+", url))
    ])
  }
  # With secret_arn the entry says whether there is a secret for the webhooks: no resource may hang on TF_VAR_credentials.
  has_listener      = { for name, entry in local.entries : name => anytrue([for field in local.webhooks : try(entry.slack[field], "") != ""]) }
  uses_its_webhooks = { for name, login in local.logins : name => local.has_own_login[name] || local.has_listener[name] || alltrue([for url in values(login.webhooks) : url == ""]) }
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

data "aws_region" "current" {
  lifecycle {
    postcondition {
      condition     = alltrue([for subnet in local.subnets : !can(regex(local.rules.common["connection.availability_zone"].pattern, subnet.availability_zone)) || startswith(subnet.availability_zone, self.name)])
      error_message = "${var.common_settings_file}: availability_zone of connection is not in the region ${self.name} that AWS_REGION or the profile selects."
    }
  }
}

# All pipelines hang on this (local.pipelines), so that wrong settings change nothing, not even with -target.
resource "terraform_data" "settings" {
  input = "checked" # known while planning, unlike an id

  lifecycle {
    precondition {
      condition     = length(local.errors) == 0
      error_message = "${length(local.errors)} settings are wrong:\n\n${join("\n", formatlist("  - %s", local.errors))}"
    }
  }
}

# Conditions may depend on ephemeral values, messages may not: so each entry has messages of its own.
resource "terraform_data" "credentials" {
  for_each = local.has_own_login

  lifecycle {
    precondition {
      condition     = local.has_login[each.key]
      error_message = "configs.${each.key}: SecretsManager.username or SecretsManager.password was never filled in. Put both into TF_VAR_credentials (or into ${var.configs_file})."
    }
    precondition {
      condition     = local.has_webhooks[each.key]
      error_message = "configs.${each.key}: slack.slack_webhook (or teams_webhook, json_webhook) was never filled in, or is not a URL. Put it into TF_VAR_credentials, or write \"\" for one that is not to be told."
    }
    precondition {
      condition     = local.uses_its_webhooks[each.key]
      error_message = "configs.${each.key}: TF_VAR_credentials has a webhook, but nobody would be told, as the entry has secret_arn and no slack.slack_webhook (or teams_webhook, json_webhook). Write \"slack\": {\"slack_webhook\": \"<in TF_VAR_credentials>\"} into the entry, or remove the webhook."
    }
  }
}

locals {
  region    = data.aws_region.current.name
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  project   = try(tostring(local.common_json.project), "rds-glue-s3-etl")
  # Before the names of what belongs to one entry, where another deployment of the account may have an entry of that name.
  prefix = can(local.common_json.project) ? "${local.project}-" : ""

  # Spark reads MariaDB by its dialect of MySQL, which knows that scheme alone.
  schemes = { mysql = "mysql", mariadb = "mysql", postgresql = "postgresql" }
  drivers = { mysql = local.driver.class_name, mariadb = local.driver.class_name, postgresql = "org.postgresql.Driver" }

  # Both are complete, and null or empty unless checked: nothing is made of settings that are wrong.
  common = one([
    for settings in [local.common_json] : {
      glue_version         = settings.Glue.glue_version
      security_group_id    = settings.connection.security_group_id
      subnets              = local.subnets
      driver               = local.driver
      kms_key_arn          = try(settings.kms_key_arn, null)
      kms_key_arns         = try(settings.kms_key_arns, [])
      role_arn             = try(settings.role_arn, null)
      permissions_boundary = try(settings.permissions_boundary, null)
      tags                 = try(settings.tags, {})
      log_retention_days   = try(settings.log_retention_days, 90)
      alarm_topic_arn      = try(settings.alarm_topic_arn, null)
      alarm_emails         = try(settings.alarm_emails, [])
      dpu_hour_usd         = try(settings.dpu_hour_usd, 0.44)
      artifact_bucket      = try(settings.artifact_bucket, null)
    } if terraform_data.settings.input == "checked"
  ])
  pipelines = {
    for name, entry in local.entries : name => {
      job                = "${local.prefix}job-${name}"
      role               = "${local.project}-job-${name}"
      connection         = "${local.prefix}connection-${name}"
      secret             = "${local.prefix}rds-secret-${name}"
      source_bucket      = entry.S3.source_bucket
      source_key         = entry.S3.source_key
      destination_bucket = entry.S3.destination_bucket
      destination_file   = entry.S3.destination_file
      source_pattern     = local.key_patterns[name].source_key
      written_patterns   = [for field in local.written_fields : local.key_patterns[name][field] if can(local.key_patterns[name][field])]
      undated_file       = local.undated_files[name]
      db_name            = entry.SecretsManager.db_name
      schema_name        = try(entry.SecretsManager.schema_name, null)
      table_name         = entry.SecretsManager.table_name
      driver             = local.drivers[entry.Database.dbtype]
      jdbc_url           = "jdbc:${local.schemes[entry.Database.dbtype]}://${entry.Database.endpoint}:${entry.Database.port}/${entry.SecretsManager.db_name}${local.drivers[entry.Database.dbtype] == "org.mariadb.jdbc.Driver" ? "?permitMysqlScheme" : ""}"
      enforce_ssl        = try(entry.Database.enforce_ssl, true)
      ca_uri             = try(entry.Database.ca_uri, null)
      schedule           = try(entry.schedule, null)
      enabled            = try(entry.enabled, true)
      on_arrival         = try(entry.on_arrival, false)
      secret_arn         = try(entry.secret_arn, null)
      has_listener       = local.has_listener[name]
      # A new number writes the secret anew. It must not be made of secrets, as it stands in the state.
      secret_version    = parseint(substr(sha256(jsonencode(concat([try(entry.SecretsManager.credentials_version, 1), entry.SecretsManager.db_name, entry.SecretsManager.table_name, try(entry.secret_arn, null)], try([entry.SecretsManager.schema_name], [])))), 0, 7), 16)
      worker_type       = try(entry.Glue.worker_type, local.common_json.Glue.worker_type)
      number_of_workers = try(entry.Glue.number_of_workers, local.common_json.Glue.number_of_workers)
      timeout_minutes   = try(entry.Glue.timeout_minutes, local.common_json.Glue.timeout_minutes)
      execution_class   = try(entry.Glue.execution_class, "STANDARD")
      options = merge(
        { for option in ["key", "language", "timezone", "count_overridden"] : "--${option}" => tostring(entry[option]) if can(entry[option]) },
        { for option in ["unmatched_file", "differences_file", "records_at"] : "--${option}" => entry.S3[option] if can(entry.S3[option]) },
        { for option in ["notify"] : "--${option}" => entry.slack[option] if can(entry.slack[option]) },
        { for option in ["max_connections", "table_key", "table_where"] : "--${option}" => tostring(entry.Database[option]) if can(entry.Database[option]) },
        { for option in ["columns"] : "--${option}" => jsonencode(entry[option]) if can(entry[option]) },
        { for option, value in try(entry.csv, {}) : "--csv_${option}" => tostring(value) },
        { for option, value in try(entry.guard, {}) : "--guard_${option}" => tostring(value) },
      )
      max_hours_between_successes = try(entry.Monitoring.max_hours_between_successes, 0)
      duration_change_percent     = try(entry.Monitoring.duration_change_percent, 200)
      row_change_percent          = try(entry.Monitoring.row_change_percent, 50)
    } if terraform_data.settings.input == "checked"
  }
}
