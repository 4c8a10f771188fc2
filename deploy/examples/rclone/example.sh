#!/bin/sh
# Write, list, read and remove an object in the bucket of a claim. All that it knows
# of the bucket comes from the claim's Secret, as environment variables. rclone reads
# the keys by itself (env_auth); the keys may not make buckets, so it must not try.
set -eu

export RCLONE_CONFIG=/dev/null
export RCLONE_CONFIG_BUCKET_TYPE=s3
export RCLONE_CONFIG_BUCKET_PROVIDER=Other
export RCLONE_CONFIG_BUCKET_ENV_AUTH=true
export RCLONE_CONFIG_BUCKET_ENDPOINT="$AWS_ENDPOINT_URL"
export RCLONE_CONFIG_BUCKET_REGION="$AWS_REGION"
export RCLONE_CONFIG_BUCKET_FORCE_PATH_STYLE=true
export RCLONE_CONFIG_BUCKET_NO_CHECK_BUCKET=true
# It does not know the variable of the AWS SDKs, and fails if it is set.
if [ -n "${AWS_CA_BUNDLE:-}" ]; then
  export RCLONE_CA_CERT="$AWS_CA_BUNDLE"
  unset AWS_CA_BUNDLE
fi

object="bucket:$BUCKET_NAME/${BUCKET_PREFIX:-}example-rclone.txt"

echo "written by rclone" | rclone rcat "$object"
rclone lsl "bucket:$BUCKET_NAME/${BUCKET_PREFIX:-}"
got=$(rclone cat "$object")
[ "$got" = "written by rclone" ] || { echo "$object holds: $got" >&2; exit 1; }
rclone deletefile "$object"
