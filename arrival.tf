# on_arrival: EventBridge tells a Glue workflow of each new object of the source; its trigger gathers those of a minute and
# starts the job once (AWS Glue guide, "Starting an AWS Glue workflow with an Amazon EventBridge event"). The bucket of the
# source is not ours: its owner has it send its events to EventBridge.

locals {
  arrivals = { for name, pipeline in local.pipelines : name => pipeline if pipeline.on_arrival && pipeline.enabled }
  # An object, all below a folder, or a pattern, as in source_key; its dates are a *, of which no two may stand together.
  arrival_wildcards = { for name, pipeline in local.arrivals : name => replace(pipeline.source_key, "/([{][a-z]+[}]|[*])+/", "*") }
  arrival_keys = {
    for name, wildcard in local.arrival_wildcards : name => concat(
      [for key in [wildcard] : { prefix = key } if endswith(key, "/") && !strcontains(key, "*")],
      [for key in [wildcard] : { wildcard = "${key}${endswith(key, "/") ? "*" : ""}" } if strcontains(key, "*")],
      [for key in [wildcard] : key if !endswith(key, "/") && !strcontains(key, "*")],
    )
  }
}

resource "aws_glue_workflow" "arrival" {
  for_each = local.arrivals

  name = each.value.job
}

resource "aws_glue_trigger" "arrival" {
  for_each = local.arrivals

  name          = "${each.value.job}-arrival"
  type          = "EVENT"
  workflow_name = aws_glue_workflow.arrival[each.key].name

  event_batching_condition {
    batch_size   = 100 # the most there may be
    batch_window = 60
  }
  actions {
    job_name = aws_glue_job.pipeline[each.key].name
  }
}

resource "aws_cloudwatch_event_rule" "arrival" {
  for_each = local.arrivals

  name        = "${local.project}-on-${each.key}"
  description = "A source of ${each.value.job} arrived"
  event_pattern = jsonencode({
    source      = ["aws.s3"]
    detail-type = ["Object Created"]
    detail      = { bucket = { name = [each.value.source_bucket] }, object = { key = local.arrival_keys[each.key] } }
  })
}

resource "aws_cloudwatch_event_target" "arrival" {
  for_each = local.arrivals

  rule     = aws_cloudwatch_event_rule.arrival[each.key].name
  arn      = "${local.glue_arn}:workflow/${aws_glue_workflow.arrival[each.key].name}"
  role_arn = aws_iam_role.arrival[0].arn

  depends_on = [aws_glue_trigger.arrival]
}

resource "aws_iam_role" "arrival" {
  count = length(local.arrivals) > 0 ? 1 : 0

  name        = "${local.project}-job-on.arrival" # no entry's name has a dot
  description = "EventBridge, which tells Glue workflows of new sources"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "events.amazonaws.com" } }]
  })
  permissions_boundary = local.common.permissions_boundary
}

resource "aws_iam_role_policy" "arrival" {
  count = length(aws_iam_role.arrival)

  name = "tell"
  role = aws_iam_role.arrival[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["glue:notifyEvent"]
      Resource = [for pipeline in local.arrivals : "${local.glue_arn}:workflow/${pipeline.job}"]
    }]
  })
}
