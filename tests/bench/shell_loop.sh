#!/usr/bin/env bash
# The loop that one writes around the support article: one install after another, and a pause for the limit.
manifest=$1 results=$2
echo location_id,access_token,refresh_token,expires_in > "$results"
tail -n +2 "$manifest" | cut -d, -f1 | while read -r location; do
  "$(dirname "$0")/one_install.sh" "$location" >> "$results" || echo "$location failed" >&2
  sleep "${PAUSE:-0}"
done
