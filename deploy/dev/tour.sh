#!/usr/bin/env bash
# The demonstration at the end of `make up`: one volume, mounted, and the same
# bytes through the mount and through S3. It uses what any user has: the
# holdfast command line, curl and the volume's own keys. Run it as often as you
# like; it makes the volume and the mount only once.
#
# usage: tour.sh [DIR]     DIR is where the volume is mounted: ~/holdfast-demo.
#                          Not in the checkout, where go would walk into it.
set -euo pipefail

holdfast=${HOLDFAST:-$(dirname "${BASH_SOURCE[0]}")/../../bin/holdfast}
volume=demo
dir=${1:-${HOLDFAST_DEMO_DIR:-$(cd ~ && pwd)/holdfast-demo}}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
if [[ ! -t 1 ]]; then say() { printf '\n== %s\n' "$*"; }; fi
fail() {
  printf 'tour: %s\n' "$*" >&2
  exit 1
}

# s3 METHOD OBJECT [CURL OPTION...]: one signed request. The keys go by stdin:
# a command line can be read by every user of the machine.
s3() {
  local method=$1 object=$2
  shift 2
  curl --config - --silent --show-error --fail --max-time 30 --request "$method" "$@" <<EOF
user = "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"
aws-sigv4 = "aws:amz:$AWS_REGION:s3"
url = "$AWS_ENDPOINT_URL/$BUCKET/$object"
EOF
}

# same A B: the two files hold the same bytes, and here is the proof.
same() {
  sha256sum "$1" "$2"
  cmp "$1" "$2" || fail "$1 and $2 differ, which must not be"
}

# eventually SECONDS COMMAND...: a change made on one side is seen on the other
# within a moment, not at once.
eventually() {
  local until=$((SECONDS + $1))
  shift
  until "$@" 2>/dev/null; do
    ((SECONDS <= until)) || return 1
    sleep 0.1
  done
}

command -v curl >/dev/null || fail "curl is missing: apt-get install curl"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

say "A volume: $volume, and a bucket of its own"
if ! "$holdfast" volume describe $volume >/dev/null 2>&1; then
  "$holdfast" volume create $volume --size 1Gi
fi
"$holdfast" volume describe $volume

say "Its mount: $dir"
if ! mountpoint -q "$dir" 2>/dev/null; then
  mkdir -p "$dir"
  "$holdfast" volume mount $volume "$dir"
fi
findmnt --mountpoint "$dir" --output TARGET,SOURCE,FSTYPE

say "Its keys: they open this one bucket"
credentials=$("$holdfast" volume credentials $volume --format env)
eval "$credentials"
echo "$AWS_ENDPOINT_URL/$BUCKET"

say "A file, written through the mount, read over S3"
printf 'Written through the mount at %s.\n' "$(date --iso-8601=ns)" >"$dir/from-mount.txt"
eventually 10 s3 GET from-mount.txt --output "$scratch/from-mount.txt" ||
  s3 GET from-mount.txt --output "$scratch/from-mount.txt"
cat "$scratch/from-mount.txt"
same "$dir/from-mount.txt" "$scratch/from-mount.txt"

say "An object, written over S3, read through the mount"
printf 'Written over S3 at %s.\n' "$(date --iso-8601=ns)" >"$scratch/from-s3.txt"
# The hash is part of what is signed, and curl before 8 leaves it out.
hash=$(sha256sum <"$scratch/from-s3.txt")
s3 PUT from-s3.txt --data-binary "@$scratch/from-s3.txt" \
  --header 'Content-Type: text/plain' --header "x-amz-content-sha256: ${hash%% *}" >/dev/null
eventually 10 cmp -s "$dir/from-s3.txt" "$scratch/from-s3.txt" || true
cat "$dir/from-s3.txt"
same "$dir/from-s3.txt" "$scratch/from-s3.txt"

say "Now yours"
cat <<EOF
  the folder   $dir
  the bucket   $AWS_ENDPOINT_URL/$BUCKET
  the keys     eval "\$(bin/holdfast volume credentials $volume --format env)"
  the state    bin/holdfast status
  the end      make down      (the data stays, and make up brings it back)
EOF
