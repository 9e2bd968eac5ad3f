"""The Glue service on one machine: a run of a job by its definition, and the deployment of one by the AWS API."""
