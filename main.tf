provider "aws" {
  default_tags {
    tags = merge({ Project = local.project, ManagedBy = "terraform" }, try(local.common_json.tags, {}))
  }
}

# ---------------------------------------------------------------------------------------------------------------------
# Once for all: key, artifacts
# ---------------------------------------------------------------------------------------------------------------------

resource "aws_kms_key" "pipelines" {
  count = local.common.kms_key_arn == null ? 1 : 0

  description             = "Secrets, artifacts and logs of ${local.project}"
  enable_key_rotation     = true
  deletion_window_in_days = 7
  policy                  = data.aws_iam_policy_document.key.json
}

resource "aws_kms_alias" "pipelines" {
  count = local.common.kms_key_arn == null ? 1 : 0

  name          = "alias/${local.project}"
  target_key_id = aws_kms_key.pipelines[0].key_id
}

locals {
  kms_key_arn     = local.common.kms_key_arn == null ? aws_kms_key.pipelines[0].arn : local.common.kms_key_arn
  artifact_bucket = local.common.artifact_bucket == null ? aws_s3_bucket.artifacts[0].bucket : local.common.artifact_bucket
  # A driver that is a file here is uploaded; one in S3 is used where it is.
  local_jar = local.common.driver.jar_uri != "" && !startswith(local.common.driver.jar_uri, "s3://")
  jar_key   = local.local_jar ? "${local.project}/${basename(local.common.driver.jar_uri)}" : ""
  jar_uri   = local.local_jar ? "s3://${local.artifact_bucket}/${local.jar_key}" : local.common.driver.jar_uri
  jar_uris  = { for name, pipeline in local.pipelines : name => pipeline.driver == "org.postgresql.Driver" ? "" : local.jar_uri }
}

# The script and its package. A version is one folder, named by all its files: whatever is changed makes a new one and
# updates each job, and what is changed back is the very one of before.
locals {
  code_files = setunion(["glue_job.py"], fileset(path.root, "overlay/**/*.py"))
  # Glue lays the files of --extra-py-files side by side in one folder, on driver and executors: overlay/csv_text.py is
  # csv_text.py there, and an __init__.py, which says that this folder is its package's path, is <package>.py. The same
  # rule is in local/glue/deploy.py; tests/deploy/test_package.py compares the two.
  code = {
    for file in local.code_files : (basename(file) == "__init__.py" ? "${basename(dirname(file))}.py" : basename(file)) => file...
  }
  code_folder = "${local.project}/${substr(sha256(join("\n", [for file in local.code_files : "${file} ${filesha256("${path.root}/${file}")}"])), 0, 16)}"
  code_uris   = { for name in keys(local.code) : name => "s3://${local.artifact_bucket}/${local.code_folder}/${name}" }
  script_uri  = local.code_uris["glue_job.py"]
  # Some 100 characters a module, of the 260 KB that Glue takes as arguments.
  package_uris = join(",", [for name, uri in local.code_uris : uri if name != "glue_job.py"])
}

resource "aws_s3_bucket" "artifacts" {
  #checkov:skip=CKV_AWS_18:Holds only what Terraform uploads from this repository; access is in CloudTrail.
  #checkov:skip=CKV_AWS_144:Rebuilt by terraform apply; a second region would hold nothing more.
  #checkov:skip=CKV2_AWS_61:Terraform deletes all versions of an object that it replaces; nothing else is written here.
  #checkov:skip=CKV2_AWS_62:Nothing listens to new artifacts.
  count = local.common.artifact_bucket == null ? 1 : 0

  bucket        = "${local.project}-${local.account}-${local.region}"
  force_destroy = true # it holds nothing but copies of this repository's files
}

resource "aws_s3_bucket_versioning" "artifacts" {
  count = length(aws_s3_bucket.artifacts)

  bucket = aws_s3_bucket.artifacts[0].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "artifacts" {
  count = length(aws_s3_bucket.artifacts)

  bucket = aws_s3_bucket.artifacts[0].id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = local.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "artifacts" {
  count = length(aws_s3_bucket.artifacts)

  bucket                  = aws_s3_bucket.artifacts[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "artifacts" {
  count = length(aws_s3_bucket.artifacts)

  bucket = aws_s3_bucket.artifacts[0].id
  policy = data.aws_iam_policy_document.artifacts[0].json

  depends_on = [aws_s3_bucket_public_access_block.artifacts] # S3 refuses both at the same time
}

# An instance is named by its key, not by its file: going back from an apply that broke off halfway then finds the files of
# before in the state, and does not delete as replaced what it has just uploaded to the very same keys.
resource "aws_s3_object" "code" {
  for_each = { for name, files in local.code : "${local.code_folder}/${name}" => files }

  bucket       = local.artifact_bucket
  key          = each.key
  source       = "${path.root}/${each.value[0]}"
  source_hash  = filesha256("${path.root}/${each.value[0]}")
  content_type = "text/x-python"

  override_provider {
    default_tags {
      tags = {} # of which an object takes ten
    }
  }

  lifecycle {
    create_before_destroy = true # the jobs name the new files before the old ones go
    precondition {
      condition     = length(each.value) == 1
      error_message = "Glue would lay ${join(" and ", each.value)} over each other as ${basename(each.key)}: rename one."
    }
  }

  depends_on = [aws_s3_bucket_versioning.artifacts, aws_s3_bucket_server_side_encryption_configuration.artifacts]
}

resource "aws_s3_object" "jar" {
  count = local.local_jar ? 1 : 0

  bucket      = local.artifact_bucket
  key         = local.jar_key
  source      = local.common.driver.jar_uri
  source_hash = filesha256(local.common.driver.jar_uri)

  override_provider {
    default_tags {
      tags = {}
    }
  }

  depends_on = [aws_s3_bucket_versioning.artifacts, aws_s3_bucket_server_side_encryption_configuration.artifacts]
}

# ---------------------------------------------------------------------------------------------------------------------
# Per pipeline: secret, connection, job, schedule
# ---------------------------------------------------------------------------------------------------------------------

locals {
  # With secret_arn the login is somebody else's secret; ours then holds the webhook alone, if there is one.
  own_secrets = { for name, pipeline in local.pipelines : name => pipeline if pipeline.secret_arn == null || pipeline.has_listener }
}

resource "aws_secretsmanager_secret" "pipeline" {
  #checkov:skip=CKV2_AWS_57:RDS rotates its own secret (secret_arn); this one is rotated by TF_VAR_credentials.
  for_each = local.own_secrets

  # A prefix, because the name of a deleted secret stays taken until its recovery window is over.
  name_prefix             = "${each.value.secret}-"
  description             = "${each.value.secret_arn == null ? "Login, table and webhook" : "Webhook"} of the Glue job ${each.value.job}"
  kms_key_id              = local.kms_key_arn
  recovery_window_in_days = 7
}

resource "aws_secretsmanager_secret_version" "pipeline" {
  for_each = local.own_secrets

  secret_id = aws_secretsmanager_secret.pipeline[each.key].id
  secret_string_wo = jsonencode(merge(
    local.logins[each.key].webhooks,
    each.value.secret_arn != null ? {} : {
      username   = local.logins[each.key].username
      password   = local.logins[each.key].password
      db_name    = each.value.db_name
      table_name = each.value.table_name
    },
    each.value.secret_arn != null || each.value.schema_name == null ? {} : { schema_name = each.value.schema_name },
  ))
  secret_string_wo_version = each.value.secret_version

  depends_on = [terraform_data.credentials] # a placeholder is never written, not even with -target
}

locals {
  login_secrets = {
    for name, pipeline in local.pipelines : name => pipeline.secret_arn == null ? aws_secretsmanager_secret.pipeline[name].arn : pipeline.secret_arn
  }
}

locals {
  # One for each subnet: a run takes the first whose zone is up and whose subnet has addresses left (AWS Glue guide,
  # "Error: Failover behavior between VPCs in AWS Glue"). The job reads the first, whichever it runs in.
  connections = merge([
    for name, pipeline in local.pipelines : {
      for place, subnet in local.common.subnets : place == 0 ? name : "${name}/${subnet.availability_zone}" => merge(pipeline, subnet, {
        entry      = name
        connection = place == 0 ? pipeline.connection : "${pipeline.connection}.${subnet.availability_zone}" # no entry's name has a dot
      })
    }
  ]...)
  connection_names = {
    for name in keys(local.pipelines) : name => [
      for place, subnet in local.common.subnets : local.connections[place == 0 ? name : "${name}/${subnet.availability_zone}"].connection
    ]
  }
}

resource "aws_glue_connection" "pipeline" {
  for_each = local.connections

  name            = each.value.connection
  description     = "${each.value.db_name}.${each.value.table_name} for the Glue job ${each.value.job}"
  connection_type = "JDBC"
  connection_properties = merge(
    {
      JDBC_CONNECTION_URL    = each.value.jdbc_url
      JDBC_ENFORCE_SSL       = tostring(each.value.enforce_ssl)
      SECRET_ID              = local.login_secrets[each.value.entry]
      JDBC_DRIVER_CLASS_NAME = each.value.driver
    },
    local.jar_uris[each.value.entry] == "" ? {} : { JDBC_DRIVER_JAR_URI = local.jar_uris[each.value.entry] },
    # Glue's own check before the script starts refuses bundles with an ECC root, as RDS has them; the driver verifies.
    each.value.ca_uri == null ? {} : { CUSTOM_JDBC_CERT = each.value.ca_uri, SKIP_CUSTOM_JDBC_CERT_VALIDATION = "true" },
  )

  physical_connection_requirements {
    availability_zone      = each.value.availability_zone
    security_group_id_list = [local.common.security_group_id]
    subnet_id              = each.value.subnet_id
  }
}

resource "aws_glue_job" "pipeline" {
  #checkov:skip=CKV_AWS_195:Without bookmarks and Spark writes it encrypts nothing, and it renames the log groups (monitoring.tf).
  for_each = local.pipelines

  name              = each.value.job
  description       = "s3://${each.value.source_bucket}/${each.value.source_key} over ${each.value.db_name}.${each.value.table_name} to s3://${each.value.destination_bucket}/${each.value.destination_file}"
  role_arn          = local.role_arns[each.key]
  glue_version      = local.common.glue_version
  worker_type       = each.value.worker_type
  number_of_workers = each.value.number_of_workers
  timeout           = each.value.timeout_minutes
  execution_class   = each.value.execution_class
  connections       = local.connection_names[each.key]

  # Queuing waits for the run before instead of failing; Glue has it for STANDARD runs without retries alone.
  max_retries             = 0
  job_run_queuing_enabled = each.value.execution_class == "STANDARD"
  execution_property {
    max_concurrent_runs = 1
  }

  command {
    name            = "glueetl"
    python_version  = "3"
    script_location = local.script_uri
  }

  default_arguments = merge(
    {
      "--job-language"                 = "python"
      "--job-bookmark-option"          = "job-bookmark-disable"
      "--enable-metrics"               = "true"
      "--enable-observability-metrics" = "true"
      "--enable-job-insights"          = "true"
      "--extra-py-files"               = local.package_uris
      "--custom-logGroup-prefix"       = local.log_prefixes[each.key]
      "--secret_name"                  = local.login_secrets[each.key]
      "--connection_name"              = aws_glue_connection.pipeline[each.key].name
      "--source_bucket"                = each.value.source_bucket
      "--source_key"                   = each.value.source_key
      "--destination_bucket"           = each.value.destination_bucket
      "--destination_file"             = each.value.destination_file
    },
    local.jar_uris[each.key] == "" ? {} : { "--extra-jars" = local.jar_uris[each.key] },
    each.value.secret_arn == null ? {} : { "--db_name" = each.value.db_name, "--table_name" = each.value.table_name },
    each.value.secret_arn == null || each.value.schema_name == null ? {} : { "--schema_name" = each.value.schema_name },
    each.value.secret_arn != null && each.value.has_listener ? { "--slack_secret_name" = aws_secretsmanager_secret.pipeline[each.key].arn } : {},
    each.value.options,
  )

  depends_on = [
    aws_glue_connection.pipeline,
    aws_s3_object.code,
    aws_s3_object.jar,
    aws_secretsmanager_secret_version.pipeline,
    aws_iam_role_policy.pipeline,
    aws_cloudwatch_log_group.pipeline,
  ]
}

resource "aws_glue_trigger" "pipeline" {
  for_each = { for name, pipeline in local.pipelines : name => pipeline if pipeline.schedule != null }

  name              = "${each.value.job}-schedule"
  type              = "SCHEDULED"
  schedule          = each.value.schedule
  enabled           = each.value.enabled
  start_on_creation = each.value.enabled

  actions {
    job_name = aws_glue_job.pipeline[each.key].name
  }
}
