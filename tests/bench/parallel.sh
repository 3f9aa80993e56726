#!/usr/bin/env bash
# The same by GNU parallel: its job log tells what is done, so that a second start goes on where the first ended.
manifest=$1 results=$2
[ -s "$results" ] || echo location_id,access_token,refresh_token,expires_in > "$results"
tail -n +2 "$manifest" | cut -d, -f1 |
  parallel --will-cite --jobs "$WORKERS" --delay "$DELAY" --retries 5 --joblog "$results.joblog" --resume \
    "$(dirname "$0")/one_install.sh" {} >> "$results"
