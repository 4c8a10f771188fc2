#!/usr/bin/env bash
# Writes the .pb.go files of storage/seaweed and driver from their .proto files, or
# compares them with what is there. A protoc of another version is no difference: only
# the header tells, and each distribution has its own.
#
# usage: generate.sh write|compare PROTOC_GEN_GO PROTOC_GEN_GO_GRPC
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mode=$1 gen_go=$2 gen_grpc=$3

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

stale=()
for root in storage/seaweed driver; do
  mkdir -p "$out/$root"
  mapfile -t protos < <(cd $root && find . -name '*.proto' -printf '%P\n' | LC_ALL=C sort)
  protoc -I $root \
    --plugin=protoc-gen-go="$gen_go" --go_out="$out/$root" --go_opt=paths=source_relative \
    --plugin=protoc-gen-go-grpc="$gen_grpc" --go-grpc_out="$out/$root" --go-grpc_opt=paths=source_relative \
    "${protos[@]}"

  # Both ways: a file that no .proto makes any more is stale too.
  files=$({ find $root -name '*.pb.go'; cd "$out" && find $root -name '*.pb.go'; } | LC_ALL=C sort -u)
  for file in $files; do
    if ! diff -q -I '^//.*protoc  *v' "$file" "$out/$file" >/dev/null 2>&1; then
      stale+=("$file")
    fi
  done
done

if [[ $mode == compare ]]; then
  if ((${#stale[@]} > 0)); then
    printf 'not what the .proto files say: %s\n' "${stale[@]}" >&2
    echo 'run make generate, and commit what it writes' >&2
    exit 1
  fi
  exit 0
fi

for file in ${stale[@]+"${stale[@]}"}; do
  if [[ -e $out/$file ]]; then
    cp "$out/$file" "$file"
    echo "wrote $file"
  else
    rm "$file"
    echo "removed $file"
  fi
done
