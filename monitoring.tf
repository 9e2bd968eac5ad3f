locals {
  # Glue 5.0 writes to <prefix>/error (Spark and the job's log) and <prefix>/output.
  log_prefixes = { for name, pipeline in local.pipelines : name => "/aws-glue/jobs/${pipeline.job}" }
  log_groups   = merge([for name, prefix in local.log_prefixes : { for stream in ["error", "output"] : "${name}/${stream}" => "${prefix}/${stream}" }]...)
}

resource "aws_cloudwatch_log_group" "pipeline" {
  for_each = local.log_groups

  name              = each.value
  retention_in_days = local.common.log_retention_days
  kms_key_id        = local.kms_key_arn
}

# The job tells Slack of its own failures; of a timeout, a stop by hand or a driver that died only Glue can tell.
resource "aws_cloudwatch_event_rule" "failed" {
  for_each = local.common.alarm_topic_arn == null ? {} : local.pipelines

  name        = "${each.value.job}-failed"
  description = "The Glue job ${each.value.job} failed, timed out or was stopped"
  event_pattern = jsonencode({
    source      = ["aws.glue"]
    detail-type = ["Glue Job State Change"]
    detail = {
      jobName = [each.value.job]
      state   = ["FAILED", "TIMEOUT", "STOPPED", "ERROR"]
    }
  })
}

resource "aws_cloudwatch_event_target" "failed" {
  for_each = aws_cloudwatch_event_rule.failed

  rule = each.value.name
  arn  = local.common.alarm_topic_arn

  input_transformer {
    input_paths = {
      job     = "$.detail.jobName"
      run     = "$.detail.jobRunId"
      state   = "$.detail.state"
      message = "$.detail.message"
    }
    input_template = "\"Glue job <job>, run <run>: <state>. <message>\""
  }
}
