#!/usr/bin/env bash
# Writes plan.md as the pull request's comment: the one of an earlier run, where there is one.
set -euo pipefail
comments="repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments"
mine='.[] | select(.user.login == "github-actions[bot]" and (.body | startswith("<!-- terraform-plan -->"))) | .id'
id=$(gh api --paginate "$comments" --jq "$mine" | sed -n 1p)
if test -n "$id"; then
  gh api --silent --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$id" --field body=@plan.md
else
  gh api --silent --method POST "$comments" --field body=@plan.md
fi
