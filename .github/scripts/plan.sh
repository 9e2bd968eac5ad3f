#!/usr/bin/env bash
# Plans into tfplan, tells the plan in plan.md and the step summary, and whether there are `changes` in the outputs.
set -euo pipefail
here=$(dirname "$0")
python3 "$here/mask.py"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
terraform plan -no-color -input=false -lock-timeout=5m -detailed-exitcode -out=tfplan >"$log" 2>&1 || status=$?
case $status in
  0) changes=false ;;
  2) changes=true ;;
  *) changes=error ;;
esac
if test "$changes" != error; then
  warnings=$(sed -n '/^Warning: /,/^─/{/^─/!p}' "$log") # which are in no plan file
  { terraform show -no-color tfplan && echo "$warnings"; } >"$log"
fi
python3 "$here/report.py" "$changes" <"$log" >plan.md
cat plan.md >>"$GITHUB_STEP_SUMMARY"
cat plan.md
echo "changes=$changes" >>"$GITHUB_OUTPUT"
test "$changes" != error
