"""A Glue service on one machine: real databases, moto for the AWS APIs, a Slack receiver, a runner for Glue jobs."""
