#!/bin/sh
# Write, list, read and remove an object in the bucket of a claim. All that it knows
# of the bucket comes from the claim's Secret, as environment variables; aws reads the
# keys, the region and the endpoint by itself.
set -eu

object="s3://$BUCKET_NAME/${BUCKET_PREFIX:-}example-awscli.txt"

echo "written by the AWS CLI" | aws s3 cp - "$object"
aws s3 ls "s3://$BUCKET_NAME/${BUCKET_PREFIX:-}"
got=$(aws s3 cp "$object" -)
[ "$got" = "written by the AWS CLI" ] || { echo "$object holds: $got" >&2; exit 1; }
aws s3 rm "$object"
