"""Write, list, read and remove an object in the bucket of a claim.

All that it knows of the bucket comes from the claim's Secret, as environment
variables; boto3 reads the keys, the region and the endpoint by itself.
"""

import os

import boto3

bucket = os.environ["BUCKET_NAME"]
prefix = os.environ.get("BUCKET_PREFIX", "")
key, content = prefix + "example-python.txt", b"written by Python\n"

s3 = boto3.client("s3")
s3.put_object(Bucket=bucket, Key=key, Body=content)
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
    for item in page.get("Contents", []):
        print(item["Size"], item["Key"])
got = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
if got != content:
    raise SystemExit(f"{key} holds {got!r}, want {content!r}")
s3.delete_object(Bucket=bucket, Key=key)
