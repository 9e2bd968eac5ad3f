"""A Glue service on one machine: real MariaDB, moto for the AWS APIs, a Slack receiver, and a runner for Glue jobs."""
