#!/usr/bin/env bash
# One install by the two calls of HighLevel's support article: curl, and jq. A line of the results on standard output.
set -euo pipefail
location=$1
code=$(curl --silent --show-error --fail "$HIGHLEVEL_BASE_URL/oauth/reconnect" --header 'Content-Type: application/json' \
  --data "{\"clientKey\": \"$HIGHLEVEL_CLIENT_ID\", \"clientSecret\": \"$HIGHLEVEL_CLIENT_SECRET\", \"locationId\": \"$location\"}" |
  jq --raw-output --exit-status .authorizationCode)
sleep "${PAUSE:-0}"
curl --silent --show-error --fail "$HIGHLEVEL_BASE_URL/oauth/token" --data grant_type=authorization_code \
  --data user_type=Location --data-urlencode "client_id=$HIGHLEVEL_CLIENT_ID" \
  --data-urlencode "client_secret=$HIGHLEVEL_CLIENT_SECRET" --data-urlencode "code=$code" |
  jq --raw-output --exit-status '[.locationId, .access_token, .refresh_token, .expires_in] | @csv'
