# One role per pipeline, allowed what its own run does: tests/deploy/test_terraform.py holds each statement against the calls
# of a real run. Where keys have dates it is allowed those of any day: a ? is one character.

data "aws_iam_policy_document" "trust" {
  statement {
    sid     = "GlueOfThisAccount"
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["glue.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

locals {
  # Roles of our own, unless common_settings.json names one for all.
  roles     = { for name, pipeline in local.pipelines : name => pipeline if local.common.role_arn == null }
  role_arns = { for name, pipeline in local.pipelines : name => local.common.role_arn == null ? aws_iam_role.pipeline[name].arn : local.common.role_arn }
  s3_arn    = "arn:${local.partition}:s3:::"
  # A subnet that another account shares, and a security group of it, are that account's.
  ec2_arn  = "arn:${local.partition}:ec2:${local.region}:*"
  glue_arn = "arn:${local.partition}:glue:${local.region}:${local.account}"
  logs_arn = "arn:${local.partition}:logs:${local.region}:${local.account}"
}

resource "aws_iam_role" "pipeline" {
  for_each = local.roles

  name                 = each.value.role
  description          = "The Glue job ${each.value.job}"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = local.common.permissions_boundary
}

# Not a policy document of the provider's: such a data source is read late, and shown as changed for every entry, when
# any entry comes or goes.
resource "aws_iam_role_policy" "pipeline" {
  for_each = local.roles

  name = "run"
  role = aws_iam_role.pipeline[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [for statement in [
      {
        Sid      = "ReadSource"
        Action   = ["s3:GetObject"]
        Resource = ["${local.s3_arn}${each.value.source_bucket}/${each.value.source_pattern}${endswith(each.value.source_key, "/") ? "*" : ""}"]
      },
      {
        Sid       = "ListSource"
        Action    = ["s3:ListBucket"]
        Resource  = ["${local.s3_arn}${each.value.source_bucket}"]
        Condition = { (each.value.source_pattern == each.value.source_key ? "StringEquals" : "StringLike") = { "s3:prefix" = split("*", each.value.source_pattern)[0] } }
      },
      {
        Sid       = "FindDestination"
        Action    = ["s3:ListBucket"]
        Resource  = ["${local.s3_arn}${each.value.destination_bucket}"]
        Condition = { (strcontains(join("", each.value.written_patterns), "?") ? "StringLike" : "StringEquals") = { "s3:prefix" = each.value.written_patterns } }
      },
      {
        Sid      = "WriteDestination"
        Action   = ["s3:PutObject", "s3:AbortMultipartUpload"]
        Resource = [for key in each.value.written_patterns : "${local.s3_arn}${each.value.destination_bucket}/${key}"]
      },
      {
        Sid      = "KeepReport"
        Action   = ["s3:GetObject", "s3:PutObject"]
        Resource = [for report in ["report.json", "report.html", "dry-run.report.json", "dry-run.report.html"] : "${local.s3_arn}${each.value.destination_bucket}/${each.value.undated_file}.${report}"]
      },
      {
        Sid      = "FindLeftUploads"
        Action   = ["s3:ListBucketMultipartUploads"]
        Resource = ["${local.s3_arn}${each.value.destination_bucket}"]
      },
      {
        Sid       = "PublishMetrics"
        Action    = ["cloudwatch:PutMetricData"]
        Resource  = "*"
        Condition = { StringEquals = { "cloudwatch:namespace" = local.metrics } }
      },
      {
        Sid      = "ReadSecret"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = distinct(concat([local.login_secrets[each.key]], contains(keys(local.own_secrets), each.key) ? [aws_secretsmanager_secret.pipeline[each.key].arn] : []))
      },
      {
        Sid      = "ReadConnection"
        Action   = ["glue:GetConnection"]
        Resource = concat(["${local.glue_arn}:catalog"], formatlist("${local.glue_arn}:connection/%s", local.connection_names[each.key]))
      },
      {
        Sid      = "LoadCodeDriverAndCa"
        Action   = ["s3:GetObject"]
        Resource = compact(["${local.s3_arn}${local.artifact_bucket}/${local.project}/*/*.py", replace(local.jar_uris[each.key], "s3://", local.s3_arn), each.value.ca_uri == null ? "" : replace(each.value.ca_uri, "s3://", local.s3_arn)])
      },
      {
        Sid      = "WriteLogs"
        Action   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${local.logs_arn}:log-group:${local.log_prefixes[each.key]}/*"]
      },
      # From here on: what the Glue service does in the role's name
      # (AWS Glue guide, "Step 2: Create an IAM role for AWS Glue"; AWSGlueServiceRole, narrowed).
      {
        Sid       = "WriteMetrics"
        Action    = ["cloudwatch:PutMetricData"]
        Resource  = "*"
        Condition = { StringEquals = { "cloudwatch:namespace" = "Glue" } }
      },
      {
        Sid      = "DescribeNetwork"
        Action   = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcAttribute", "ec2:DescribeVpcEndpoints"]
        Resource = "*"
      },
      {
        Sid    = "MakeNetworkInterface"
        Action = ["ec2:CreateNetworkInterface"]
        Resource = concat(
          ["${local.ec2_arn}:network-interface/*", "${local.ec2_arn}:security-group/${local.common.security_group_id}"],
          formatlist("${local.ec2_arn}:subnet/%s", local.common.subnets[*].subnet_id),
        )
      },
      {
        Sid       = "TagNetworkInterface"
        Action    = ["ec2:CreateTags"]
        Resource  = ["${local.ec2_arn}:network-interface/*"]
        Condition = { "ForAllValues:StringEquals" = { "aws:TagKeys" = ["aws-glue-service-resource"] } }
      },
      {
        Sid      = "DeleteNetworkInterface"
        Action   = ["ec2:DeleteNetworkInterface"]
        Resource = ["${local.ec2_arn}:network-interface/*"]
      },
      {
        Sid      = "UseKey"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = concat([local.kms_key_arn], local.common.kms_key_arns)
      },
    ] : merge({ Effect = "Allow" }, statement)]
  })
}

data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109:A key policy's resource is the key itself.
  #checkov:skip=CKV_AWS_111:A key policy's resource is the key itself.
  #checkov:skip=CKV_AWS_356:A key policy's resource is the key itself.
  statement {
    sid       = "AccountByIam"
    actions   = ["kms:*"]
    resources = ["*"]
    principals {
      type        = "AWS"
      identifiers = ["arn:${local.partition}:iam::${local.account}:root"]
    }
  }
  statement {
    sid       = "CloudWatchLogs"
    actions   = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey"]
    resources = ["*"]
    principals {
      type        = "Service"
      identifiers = ["logs.${local.region}.amazonaws.com"]
    }
    condition {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values   = ["arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/aws-glue/jobs/*"]
    }
  }
  # To publish to the topic of our own, which the key encrypts.
  dynamic "statement" {
    for_each = local.common.alarm_topic_arn == null ? { Events = "events", Alarms = "cloudwatch" } : {}
    content {
      sid       = statement.key
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = ["*"]
      principals {
        type        = "Service"
        identifiers = ["${statement.value}.amazonaws.com"]
      }
      dynamic "condition" {
        for_each = statement.value == "cloudwatch" ? [local.account] : []
        content {
          test     = "StringEquals"
          variable = "aws:SourceAccount"
          values   = [condition.value]
        }
      }
    }
  }
}

data "aws_iam_policy_document" "alarms" {
  count = length(aws_sns_topic.alarms)

  # EventBridge takes no condition here, nor on the key ("Using resource-based policies for Amazon EventBridge").
  statement {
    sid       = "Events"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms[0].arn]
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
  }
  statement {
    sid       = "Alarms"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms[0].arn]
    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

data "aws_iam_policy_document" "artifacts" {
  count = length(aws_s3_bucket.artifacts)

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.artifacts[0].arn, "${aws_s3_bucket.artifacts[0].arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}
