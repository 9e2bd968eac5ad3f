#!/usr/bin/env bash
# Applies tfplan. Ephemeral variables are in no plan, so TF_VAR_credentials is needed here as it was for the plan.
set -euo pipefail
python3 "$(dirname "$0")/mask.py"
terraform apply -no-color -input=false -lock-timeout=5m tfplan
