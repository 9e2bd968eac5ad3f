# One role per pipeline, allowed what its own run does: tests/test_terraform.py holds each statement against the calls
# of a real run.

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
  ec2_arn   = "arn:${local.partition}:ec2:${local.region}:${local.account}"
  glue_arn  = "arn:${local.partition}:glue:${local.region}:${local.account}"
  logs_arn  = "arn:${local.partition}:logs:${local.region}:${local.account}"
}

resource "aws_iam_role" "pipeline" {
  for_each = local.roles

  name                 = "${each.value.job}-role"
  description          = "The Glue job ${each.value.job}"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  permissions_boundary = local.common.permissions_boundary
}

resource "aws_iam_role_policy" "pipeline" {
  for_each = local.roles

  name   = "run"
  role   = aws_iam_role.pipeline[each.key].id
  policy = data.aws_iam_policy_document.pipeline[each.key].json
}

data "aws_iam_policy_document" "pipeline" {
  #checkov:skip=CKV_AWS_356:ec2:Describe* and cloudwatch:PutMetricData know no resources (Service Authorization Reference).
  #checkov:skip=CKV_AWS_111:As above; CreateNetworkInterface and DeleteNetworkInterface are bound to subnet, group and tag.
  for_each = local.roles

  statement {
    sid       = "ReadSource"
    actions   = ["s3:GetObject"]
    resources = ["${local.s3_arn}${each.value.source_bucket}/${each.value.source_key}${endswith(each.value.source_key, "/") ? "*" : ""}"]
  }
  statement {
    sid       = "ListSource"
    actions   = ["s3:ListBucket"]
    resources = ["${local.s3_arn}${each.value.source_bucket}"]
    condition {
      test     = "StringEquals"
      variable = "s3:prefix"
      values   = [split("*", each.value.source_key)[0]]
    }
  }
  statement {
    sid       = "FindDestination"
    actions   = ["s3:ListBucket"]
    resources = ["${local.s3_arn}${each.value.destination_bucket}"]
    condition {
      test     = "StringEquals"
      variable = "s3:prefix"
      values   = [each.value.destination_file]
    }
  }
  statement {
    sid       = "WriteDestination"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${local.s3_arn}${each.value.destination_bucket}/${each.value.destination_file}"]
  }
  statement {
    sid       = "ReadSecret"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = compact([local.login_secrets[each.key], try(aws_secretsmanager_secret.pipeline[each.key].arn, "")])
  }
  statement {
    sid       = "ReadConnection"
    actions   = ["glue:GetConnection"]
    resources = ["${local.glue_arn}:catalog", "${local.glue_arn}:connection/${each.value.job}"]
  }

  # From here on: what the Glue service does in the role's name
  # (AWS Glue guide, "Step 2: Create an IAM role for AWS Glue"; AWSGlueServiceRole, narrowed).
  statement {
    sid       = "LoadScriptAndDriver"
    actions   = ["s3:GetObject"]
    resources = compact([replace(local.script_uri, "s3://", local.s3_arn), replace(local.jar_uri, "s3://", local.s3_arn)])
  }
  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:AssociateKmsKey"]
    resources = ["${local.logs_arn}:log-group:${local.log_prefixes[each.key]}/*"]
  }
  statement {
    sid       = "WriteMetrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = ["Glue"]
    }
  }
  statement {
    sid       = "DescribeNetwork"
    actions   = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcAttribute", "ec2:DescribeVpcEndpoints"]
    resources = ["*"]
  }
  statement {
    sid     = "MakeNetworkInterface"
    actions = ["ec2:CreateNetworkInterface"]
    resources = [
      "${local.ec2_arn}:network-interface/*",
      "${local.ec2_arn}:subnet/${local.common.subnet_id}",
      "${local.ec2_arn}:security-group/${local.common.security_group_id}",
    ]
  }
  statement {
    sid       = "TagNetworkInterface"
    actions   = ["ec2:CreateTags"]
    resources = ["${local.ec2_arn}:network-interface/*"]
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "aws:TagKeys"
      values   = ["aws-glue-service-resource"]
    }
  }
  statement {
    sid       = "DeleteNetworkInterface"
    actions   = ["ec2:DeleteNetworkInterface"]
    resources = ["${local.ec2_arn}:network-interface/*"]
  }
  statement {
    sid       = "UseKey"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [local.kms_key_arn]
  }
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
