#!/usr/bin/env bash
# Writes the .pb.go files of storage/seaweed from its .proto files, or compares
# them with what is there. A protoc of another version is no difference: only
# the header tells, and each distribution has its own.
#
# usage: generate.sh write|compare PROTOC_GEN_GO PROTOC_GEN_GO_GRPC
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mode=$1 gen_go=$2 gen_grpc=$3
root=storage/seaweed

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

mapfile -t protos < <(cd $root && find . -name '*.proto' -printf '%P\n' | LC_ALL=C sort)
protoc -I $root \
  --plugin=protoc-gen-go="$gen_go" --go_out="$out" --go_opt=paths=source_relative \
  --plugin=protoc-gen-go-grpc="$gen_grpc" --go-grpc_out="$out" --go-grpc_opt=paths=source_relative \
  "${protos[@]}"

# Both ways: a file that no .proto makes any more is stale too.
files=$({ cd $root && find . -name '*.pb.go' -printf '%P\n'; cd "$out" && find . -name '*.pb.go' -printf '%P\n'; } | LC_ALL=C sort -u)

stale=()
for file in $files; do
  if ! diff -q -I '^//.*protoc  *v' "$root/$file" "$out/$file" >/dev/null 2>&1; then
    stale+=("$root/$file")
  fi
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
  made=$out/${file#"$root/"}
  if [[ -e $made ]]; then
    cp "$made" "$file"
    echo "wrote $file"
  else
    rm "$file"
    echo "removed $file"
  fi
done
