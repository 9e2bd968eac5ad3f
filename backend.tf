terraform {
  # 1.11: write-only arguments (secret values stay out of state and plan) and S3 lock files.
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # Bucket, key and region come by -backend-config, so that nobody's bucket is in the code.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}
