output "jobs" {
  description = "What was deployed, by entry: Glue job, console, schedule (UTC), connection, role, secret and alarms."
  value = {
    for name, pipeline in local.pipelines : name => {
      job        = aws_glue_job.pipeline[name].name
      console    = local.run_lists[name]
      schedule   = pipeline.schedule == null ? "none" : "${pipeline.schedule} UTC${pipeline.enabled ? "" : " (disabled)"}"
      on_arrival = contains(keys(local.arrivals), name)
      output     = "s3://${pipeline.destination_bucket}/${pipeline.destination_file}"
      connection = aws_glue_connection.pipeline[name].name
      role       = local.role_arns[name]
      secret     = local.login_secrets[name]
      logs       = "${local.log_page}${pipeline.job}$252F"
      alarms = concat(
        [
          contains(keys(local.success_alarms), name) ? "no success for ${local.success_alarms[name]} hours" :
          "no alarm: ${pipeline.enabled ? "no Monitoring.max_hours_between_successes" : "the entry is not enabled"}"
        ],
        [for alarm in local.changes : "${alarm.kind} changes by more than ${alarm.percent} %" if alarm.entry == name],
      )
    }
  }
}

output "script" {
  description = "The script that every job runs; its package lies beside it."
  value       = local.script_uri
}

output "dashboard" {
  description = "All pipelines at a glance."
  value       = "${local.console}/cloudwatch/home?region=${local.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.pipelines.dashboard_name}"
}

output "alarm_topic" {
  description = "The SNS topic that hears of failures and alarms; subscribe a chat here."
  value       = local.alarm_topic_arn
}
