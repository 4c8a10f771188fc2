#!/usr/bin/env bash
# Says before the build what would stop it: a Go that is missing or too old, or
# a build by root in somebody else's checkout. go.mod's go line is the minimum.
#
# usage: preflight.sh [GO]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

go=${1:-go}
want=$(awk '$1 == "go" { print $2; exit }' go.mod)
remedy="Install Go $want or newer: unpack the archive for this machine from https://go.dev/dl/ to /usr/local (it becomes /usr/local/go), then run make again."

fail() {
  printf 'make: %s\n' "$@" >&2
  exit 1
}

# number VERSION: one integer that orders versions, or nothing if it is no
# version. 1.26rc1 comes before 1.26.0, which is why sort -V will not do.
number() {
  [[ $1 =~ ([0-9]+)\.([0-9]+)(\.([0-9]+)|(rc|beta)[0-9]+)? ]] || return 0
  local patch=$((${BASH_REMATCH[4]:-0} + 1))
  if [[ -n ${BASH_REMATCH[5]} ]]; then patch=0; fi
  echo $((BASH_REMATCH[1] * 1000000 + BASH_REMATCH[2] * 1000 + patch))
}

# `sudo make` would leave files of root in the owner's checkout and caches.
if [[ $(id -u) == 0 && -n ${SUDO_UID:-} && ${SUDO_UID:-} != 0 && $(stat -c %u .) == "$SUDO_UID" ]]; then
  fail "this checkout is ${SUDO_USER:-yours}'s, and the build needs no root: run make without sudo. It asks for sudo where it must."
fi

if ! command -v "$go" >/dev/null; then
  fail "Go is not installed." "$remedy"
fi

# GOTOOLCHAIN=local: what is installed, not what it would fetch for go.mod.
have=$(GOTOOLCHAIN=local "$go" env GOVERSION 2>/dev/null || true)
if [[ -z $have ]]; then # before Go 1.18 env GOVERSION may be empty
  have=$("$go" version 2>/dev/null | awk '{ print $3 }') || true
fi
if [[ -z $(number "$have") ]]; then
  fail "$(command -v "$go") does not say its version." "$remedy"
fi
if (($(number "$have") >= $(number "$want"))); then
  exit 0
fi

old="$(command -v "$go") is ${have}, and go.mod asks for $want."
other=/usr/local/go/bin/go
if [[ -x $other && $(number "$(GOTOOLCHAIN=local $other env GOVERSION)") -ge $(number "$want") ]]; then
  fail "$old" "A newer one is here: run  make GO=$other  or put /usr/local/go/bin first in PATH."
fi
if (($(number "$have") < $(number 1.21))); then
  fail "$old" "$remedy"
fi

# Since 1.21 go fetches a newer toolchain by itself, unless told not to.
if [[ $("$go" env GOTOOLCHAIN 2>/dev/null || GOTOOLCHAIN=local "$go" env GOTOOLCHAIN) == local ]]; then
  fail "$old GOTOOLCHAIN=local keeps it from fetching that itself: run  GOTOOLCHAIN=auto make …  to let it." "$remedy"
fi
echo "make: $old It may fetch that itself; trying."
if ! "$go" version >/dev/null; then
  fail "$old It could not fetch that (see above)." "$remedy"
fi
