#!/usr/bin/env bash
# Runs each fuzz target for so long, one after the other, with that many workers. What
# fails is printed with the input, and how to repeat it: a checkout that is thrown away
# takes the file that Go writes with it.
#
# The fuzzer watches our own packages, and the parsers of the standard library where
# little else is built of them. go test -fuzz watches all that a test is built of: with
# gRPC that takes more than a minute to compile.
#
# usage: fuzz.sh GO TIME WORKERS
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

go=$1 time=$2 workers=$3
module=$("$go" list -m)

# storage/seaweed is left out: its tests, and so each worker, start a whole cluster.
mapfile -t targets < <(grep -roE '^func Fuzz\w+' --include='*_test.go' . |
  sed -E 's#^\./(.*)/[^/]+:func (.*)#\1 \2#' | grep -v '^storage/seaweed ' | LC_ALL=C sort)
((${#targets[@]} > 0)) || { echo 'fuzz.sh: there are no targets' >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
found=$("$go" env GOCACHE)/fuzz # what earlier runs have found is where they begin

for target in "${targets[@]}"; do
  read -r package name <<<"$target"
  binary=$scratch/${package//\//-}.test
  watched=("-gcflags=$module/...=-d=libfuzzer")
  [[ $package == driver ]] || watched+=("-gcflags=encoding/...=-d=libfuzzer")
  [[ -x $binary ]] || "$go" test -c "${watched[@]}" -o "$binary" "./$package"
  echo "$package $name"
  touch "$scratch/began"
  if ! (cd "$package" && "$binary" -test.run '^$' -test.fuzz "^$name\$" -test.fuzztime "$time" -test.fuzzminimizetime 5s \
    -test.parallel "$workers" -test.fuzzcachedir "$found/$module/$package" -test.timeout 0) >"$scratch/said" 2>&1; then
    cat "$scratch/said" >&2
    while read -r input; do
      printf '\n%s fails for this input:\n\n' "$name"
      cat "$input"
      printf '\nTo repeat it, put that into %s/testdata/fuzz/%s/NAME and run\n\n  go test -run %s/NAME ./%s\n\n' "$package" "$name" "$name" "$package"
      printf 'When it is mended the file stays, under a name that says what it is: it runs with every test.\n'
    done < <(find "$package/testdata/fuzz/$name" -type f -newer "$scratch/began" 2>/dev/null) >&2
    exit 1
  fi
  if grep -q 'without coverage guidance' "$scratch/said" || ! grep -q 'now fuzzing' "$scratch/said"; then
    cat "$scratch/said" >&2
    echo "fuzz.sh: $name was not fuzzed" >&2
    exit 1
  fi
  tail -n 3 "$scratch/said"
done
