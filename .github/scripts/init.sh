#!/usr/bin/env bash
# Terraform on the state that the repository's variables name.
set -euo pipefail
: "${AWS_REGION:?set the repository variable AWS_REGION}"
: "${TF_STATE_BUCKET:?set the repository variable TF_STATE_BUCKET}"
: "${TF_STATE_KEY:?set the repository variable TF_STATE_KEY}"
terraform init -no-color -input=false -lockfile=readonly \
  -backend-config="bucket=$TF_STATE_BUCKET" -backend-config="key=$TF_STATE_KEY" -backend-config="region=$AWS_REGION"
