output "jobs" {
  description = "What was deployed, by entry: Glue job, console, schedule (UTC), connection, role and secret."
  value = {
    for name, pipeline in local.pipelines : name => {
      job        = aws_glue_job.pipeline[name].name
      console    = "https://${local.region}.console.aws.amazon.com/gluestudio/home?region=${local.region}#/editor/job/${pipeline.job}/runs"
      schedule   = pipeline.schedule == null ? "none" : "${pipeline.schedule} UTC${pipeline.enabled ? "" : " (disabled)"}"
      output     = "s3://${pipeline.destination_bucket}/${pipeline.destination_file}"
      connection = aws_glue_connection.pipeline[name].name
      role       = local.role_arns[name]
      secret     = local.login_secrets[name]
      logs       = "${local.log_prefixes[name]}/error"
    }
  }
}

output "script" {
  description = "The script that every job runs."
  value       = local.script_uri
}
