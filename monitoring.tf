# What the job cannot say itself: logs, state changes of its runs, alarms on its metrics, one dashboard.

locals {
  # Of what the script prints, and so of the job's log, AWS Glue guide says both <prefix>/output ("Logging for AWS Glue
  # jobs") and <prefix>/error, where Spark's own log is; so links lead to both. A security configuration would have Glue append
  # its name and write to groups of its own, without retention and key (Glue API, JobRun.LogGroupName): there is none.
  log_prefixes = { for name, pipeline in local.pipelines : name => "/aws-glue/jobs/${pipeline.job}" }
  log_groups   = merge([for name, prefix in local.log_prefixes : { for stream in ["error", "output"] : "${name}/${stream}" => "${prefix}/${stream}" }]...)
  console      = "https://${local.region}.console.aws.amazon.com"
  log_page     = "${local.console}/cloudwatch/home?region=${local.region}#logsV2:log-groups$3FlogGroupNameFilter$3D$252Faws-glue$252Fjobs$252F"
  run_lists    = { for name, pipeline in local.pipelines : name => "${local.console}/gluestudio/home?region=${local.region}#/editor/job/${pipeline.job}/runs" }
}

resource "aws_cloudwatch_log_group" "pipeline" {
  for_each = local.log_groups

  name              = each.value
  retention_in_days = local.common.log_retention_days
  kms_key_id        = local.kms_key_arn
}

# ---------------------------------------------------------------------------------------------------------------------
# Topic
# ---------------------------------------------------------------------------------------------------------------------

resource "aws_sns_topic" "alarms" {
  count = local.common.alarm_topic_arn == null ? 1 : 0

  name              = "${local.project}-alarms"
  kms_master_key_id = local.kms_key_arn
}

resource "aws_sns_topic_policy" "alarms" {
  count = length(aws_sns_topic.alarms)

  arn    = aws_sns_topic.alarms[0].arn
  policy = data.aws_iam_policy_document.alarms[0].json
}

# SNS asks each address to confirm.
resource "aws_sns_topic_subscription" "email" {
  for_each = toset(local.common.alarm_emails)

  topic_arn = local.alarm_topic_arn
  protocol  = "email"
  endpoint  = each.value
}

locals {
  alarm_topic_arn = local.common.alarm_topic_arn == null ? aws_sns_topic.alarms[0].arn : local.common.alarm_topic_arn
}

# ---------------------------------------------------------------------------------------------------------------------
# Runs that failed, timed out or were stopped
# ---------------------------------------------------------------------------------------------------------------------

locals {
  # An event tells no job of ours from another but by its name, and a pattern holds 2,048 characters: 25 names of up to
  # 64 characters and the rest fit.
  watched_jobs = chunklist(values(local.pipelines)[*].job, 25)
}

# The job tells Slack of its own failures, and its exception then says so; of a timeout, a stop by hand or a driver that
# died only Glue can tell.
resource "aws_cloudwatch_event_rule" "failed" {
  count = length(local.watched_jobs)

  name        = "${local.project}-failed-${count.index + 1}"
  description = "A run failed, timed out or was stopped, and Slack was not told"
  event_pattern = jsonencode({
    source      = ["aws.glue"]
    detail-type = ["Glue Job State Change"]
    detail = {
      jobName = local.watched_jobs[count.index]
      state   = ["FAILED", "TIMEOUT", "STOPPED", "ERROR"]
      # Not a suffix: Glue adds a note to the exception of a FLEX run.
      message = [{ exists = false }, { anything-but = { wildcard = "*[reported]*" } }]
    }
  })
}

resource "aws_cloudwatch_event_target" "failed" {
  count = length(aws_cloudwatch_event_rule.failed)

  rule = aws_cloudwatch_event_rule.failed[count.index].name
  arn  = local.alarm_topic_arn

  # Amazon Q Developer shows this form in a chat, and drops texts. EventBridge puts values in unescaped: what may hold a
  # quote stands as JSON, and the whole detail may, as it is there in each event.
  input_transformer {
    input_paths = {
      job    = "$.detail.jobName"
      run    = "$.detail.jobRunId"
      state  = "$.detail.state"
      detail = "$.detail"
    }
    input_template = <<-JSON
      {
        "version": "1.0",
        "source": "custom",
        "content": {
          "textType": "client-markdown",
          "title": "❌ <job>: <state>",
          "description": "Glue ジョブ <job> は <state> で終わりました。The Glue job <job> ended as <state>. 実行 / Run: ${local.console}/gluestudio/home?region=${local.region}#/job/<job>/run/<run> ログ / Logs: ${local.log_page}<job>$252F"
        },
        "metadata": {"additionalContext": <detail>}
      }
    JSON
  }
}

# ---------------------------------------------------------------------------------------------------------------------
# Alarms
# ---------------------------------------------------------------------------------------------------------------------

locals {
  metrics = "RdsGlueS3Etl"
  # Hours. An alarm looks back seven days at most (PutMetricAlarm, Period), which is what the setting may be.
  success_alarms = { for name, pipeline in local.pipelines : name => pipeline.max_hours_between_successes if pipeline.enabled && pipeline.max_hours_between_successes > 0 }
  # Change is told from the day of the run before, so that day has to lie within what an alarm sees.
  change_days = { for name, hours in local.success_alarms : name => min(7, max(2, floor(hours / 24) + 1)) }
  changes = merge([
    for name, days in local.change_days : {
      for kind, alarm in {
        duration = {
          percent = local.pipelines[name].duration_change_percent
          metrics = { seconds = "DurationSeconds", succeeded = "Succeeded" } # a run that fails is short
          maths   = { value = "IF(succeeded > 0, seconds)", change = "100 * DIFF(value) / (value - DIFF(value))" }
          text    = "の所要時間が前の実行日より %d%% を超えて延びました / took over %d%% longer than on the day of the run before"
        }
        rows = {
          percent = local.pipelines[name].row_change_percent
          metrics = { value = "SourceRecords" }
          maths   = { change = "100 * ABS(DIFF(value) / (value - DIFF(value)))" }
          text    = "の入力件数が前の実行日から %d%% を超えて変わりました / read over %d%% more or fewer records than on the day of the run before"
        }
      } : "${name}/${kind}" => merge(alarm, { entry = name, kind = kind, days = days }) if alarm.percent > 0
    }
  ]...)
  alarm_names = concat(
    [for name in keys(local.success_alarms) : "${local.pipelines[name].job}-no-success"],
    [for alarm in local.changes : "${local.pipelines[alarm.entry].job}-${alarm.kind}"],
  )
}

check "schedules_are_watched" {
  assert {
    condition     = length(local.unwatched) == 0
    error_message = "Nobody would notice that these no longer run: ${join(", ", formatlist("configs.%s", local.unwatched))} (${var.configs_file}). Give each a Monitoring.max_hours_between_successes: the longest time between two runs of its schedule, plus timeout_minutes, plus one hour (26 for a daily run, 74 for weekdays); 0 for no alarm."
  }
}

resource "aws_cloudwatch_metric_alarm" "no_success" {
  for_each = local.success_alarms

  alarm_name          = "${local.pipelines[each.key].job}-no-success"
  alarm_description   = "${local.pipelines[each.key].job} は ${each.value} 時間成功していません / has not succeeded for ${each.value} hours. ${local.run_lists[each.key]}"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  evaluation_periods  = each.value
  treat_missing_data  = "breaching"
  alarm_actions       = [local.alarm_topic_arn]

  # Filled, because CloudWatch otherwise looks further back than it was told while values are missing.
  metric_query {
    id          = "filled"
    label       = "Succeeded"
    expression  = "FILL(value, 0)"
    return_data = true
  }
  metric_query {
    id = "value"
    metric {
      namespace   = local.metrics
      metric_name = "Succeeded"
      dimensions  = { Job = local.pipelines[each.key].job }
      period      = 3600
      stat        = "Maximum"
    }
  }
}

# Against the run before, not an anomaly detection band: that learns from two weeks, which for a daily run are fourteen
# values, and around a count that hardly moves its band is too narrow. AVG over the window is not for alarms
# (CloudWatch guide, "Using metric math").
resource "aws_cloudwatch_metric_alarm" "change" {
  for_each = local.changes

  alarm_name          = "${local.pipelines[each.value.entry].job}-${each.value.kind}"
  alarm_description   = "${local.pipelines[each.value.entry].job} ${format(each.value.text, each.value.percent, each.value.percent)}. ${local.run_lists[each.value.entry]}"
  comparison_operator = "GreaterThanThreshold"
  threshold           = each.value.percent
  evaluation_periods  = each.value.days
  datapoints_to_alarm = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [local.alarm_topic_arn]

  dynamic "metric_query" {
    for_each = each.value.maths
    content {
      id          = metric_query.key
      expression  = metric_query.value
      return_data = metric_query.key == "change"
    }
  }
  dynamic "metric_query" {
    for_each = each.value.metrics
    content {
      id = metric_query.key
      metric {
        namespace   = local.metrics
        metric_name = metric_query.value
        dimensions  = { Job = local.pipelines[each.value.entry].job }
        period      = 24 * 3600
        stat        = "Maximum"
      }
    }
  }
}

# ---------------------------------------------------------------------------------------------------------------------
# Dashboard
# ---------------------------------------------------------------------------------------------------------------------

locals {
  # USD a second of a run (README, "Cost of a run"); FLEX costs two thirds.
  run_prices = {
    for name, pipeline in local.pipelines : name =>
    pipeline.number_of_workers * tonumber(regex("[0-9]+", pipeline.worker_type)) * local.common.dpu_hour_usd * (pipeline.execution_class == "FLEX" ? 0.66 : 1) / 3600
  }
  # A table shows what its label ends in, and the columns over the time range. `math` is of the metric `m`.
  panels = [
    { title = "最終成功 / Last success", metric = "Succeeded", stat = "Sum", period = 3600, view = "table", math = "IF(m > 0, m)", label = "$${LAST_TIME_RELATIVE}", columns = ["SUM"] },
    { title = "入力件数 / Source records", metric = "SourceRecords", stat = "Maximum", period = 3600, view = "table", math = null, label = "$${LAST}", columns = ["MIN", "MAX"] },
    { title = "テーブルのみの行 / Table-only rows", metric = "UnmatchedRows", stat = "Maximum", period = 3600, view = "table", math = null, label = "$${LAST}", columns = ["MIN", "MAX"] },
    { title = "所要時間 (秒) / Duration (s)", metric = "DurationSeconds", stat = "Maximum", period = 3600, view = "table", math = null, label = "$${LAST}", columns = ["MIN", "MAX", "AVG"] },
    { title = "費用の目安 (USD) / Estimated cost (USD)", metric = "DurationSeconds", stat = "Sum", period = 3600, view = "table", math = "m * price", label = "$${LAST}", columns = ["SUM", "AVG"] },
    { title = "所要時間の推移 / Duration over time", metric = "DurationSeconds", stat = "Maximum", period = 3600, view = "timeSeries", math = null, label = "", columns = [] },
  ]
  # CloudWatch takes 100 alarms and 500 metrics in a widget.
  alarm_groups    = chunklist(local.alarm_names, 100)
  pipeline_groups = chunklist(keys(local.pipelines), 100)
  widgets = concat(
    [{
      type = "text", x = 0, y = 0, width = 24, height = 2
      properties = {
        markdown = join("\n", [
          "各表の右端は期間中の最小・最大・平均・合計、名前の後は最新の値です。費用 = 所要時間 x ワーカー数 x DPU x ${local.common.dpu_hour_usd} USD/DPU 時間 (目安)。",
          "After a name stands its latest value; the columns cover the time range. Cost = duration x workers x DPU x ${local.common.dpu_hour_usd} USD per DPU-hour (an estimate).",
        ])
      }
    }],
    [for group, names in local.alarm_groups : {
      type = "alarm", x = 0, y = 2 + 4 * group, width = 24, height = 4
      properties = {
        title  = "アラーム / Alarms"
        alarms = [for name in names : "arn:${local.partition}:cloudwatch:${local.region}:${local.account}:alarm:${name}"]
      }
    }],
    flatten([for group, names in local.pipeline_groups : [
      for place, panel in local.panels : {
        type = "metric", x = place % 3 * 8, y = 2 + 4 * length(local.alarm_groups) + 40 * group + floor(place / 3) * min(20, 3 + length(names)), width = 8, height = min(20, 3 + length(names))
        properties = merge(
          {
            title  = panel.title
            view   = panel.view
            region = local.region
            period = panel.period
            stat   = panel.stat
            metrics = concat(
              [for number, name in names : [
                local.metrics, panel.metric, "Job", local.pipelines[name].job,
                merge({ id = "m${number}", label = trimspace("${name} ${panel.label}") }, panel.math == null ? {} : { visible = false }),
              ]],
              [for number, name in names : [{
                id         = "e${number}"
                label      = "${name} ${panel.label}"
                expression = replace(replace(panel.math, "/\\bm\\b/", "m${number}"), "price", format("%.8f", local.run_prices[name]))
              }] if panel.math != null],
            )
          },
          panel.view == "table" ? { table = { layout = "horizontal", stickySummary = true, showTimeSeriesData = false, summaryColumns = panel.columns } } : {},
        )
      }
    ]]),
  )
}

resource "aws_cloudwatch_dashboard" "pipelines" {
  dashboard_name = local.project
  dashboard_body = jsonencode({
    start          = "-P14D"
    periodOverride = "inherit"
    widgets        = local.widgets
  })
}
