#!/usr/bin/env bash
# Prepares a Debian machine: installs by apt what is missing, and nothing else.
# Silent when nothing is. On another system it says what to install by hand.
#
# usage: prepare.sh GROUP...
#   run     start Holdfast: FUSE, curl, pip (it brings the pinned weed), git
#   load    the kill tests and the benchmark: SQLite's own program
#   race    the race detector: a C compiler
#   proto   the generated code: protoc
#   image   the image test: buildah
#   e2e     a real Kubernetes: containerd, runc, CNI plugins, busybox, nftables;
#           and S3 clients for the examples: rclone, and pip for the others
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin # an ordinary user's PATH lacks modprobe

say() { printf 'prepare: %s\n' "$*"; }
fail() {
  printf 'prepare: %s\n' "$@" >&2
  exit 1
}

# as_root COMMAND...: apt and modprobe only. Nothing else here needs root.
as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi; }

# need_root WHY: before as_root, whose output goes elsewhere.
need_root() {
  [[ $(id -u) == 0 ]] || command -v sudo >/dev/null ||
    fail "$1 needs root, and you are not root and have no sudo." "As root, run:  $0 ${groups[*]}"
}

has_headers() { echo '#include <stdlib.h>' | gcc -E -x c - >/dev/null 2>&1; }
has_pip() { python3 -m pip --version >/dev/null 2>&1; }
has_roots() { [[ -s /etc/ssl/certs/ca-certificates.crt ]]; }

# missing_packages: one package a line for what the groups need and is not here.
# What counts is the thing itself, not the package: pyenv's pip is a pip.
missing_packages() {
  local group
  for group in "${groups[@]}"; do
    case $group in
      run)
        command -v curl >/dev/null || echo curl
        command -v git >/dev/null || echo git
        has_roots || echo ca-certificates
        if [[ -z ${HOLDFAST_WEED:-} ]]; then
          command -v python3 >/dev/null || echo python3
          has_pip || echo python3-pip
        fi
        ;;
      load)
        command -v sqlite3 >/dev/null || echo sqlite3
        ;;
      race)
        command -v gcc >/dev/null || echo gcc
        has_headers || echo libc6-dev
        ;;
      proto)
        command -v protoc >/dev/null || echo protobuf-compiler
        ;;
      image)
        command -v buildah >/dev/null || echo buildah
        ;;
      e2e)
        command -v containerd >/dev/null || echo containerd
        command -v runc >/dev/null || echo runc
        command -v conntrack >/dev/null || echo conntrack
        command -v nft >/dev/null || echo nftables
        command -v ip >/dev/null || echo iproute2
        command -v nsenter >/dev/null || echo util-linux
        command -v mount >/dev/null || echo mount
        command -v rclone >/dev/null || echo rclone
        command -v python3 >/dev/null || echo python3
        has_pip || echo python3-pip
        [[ -x /usr/lib/cni/ptp ]] || echo containernetworking-plugins
        # What the images hold must need no library.
        [[ -x /bin/busybox ]] && ! ldd /bin/busybox >/dev/null 2>&1 || echo busybox-static
        ;;
      *) fail "no such group: $group (run, load, race, proto, image, e2e)" ;;
    esac
  done
}

# apt_update: a fresh machine runs its own update at boot, and apt-get update
# does not wait for that one's lock: DPkg::Lock::Timeout is for installs only.
apt_update() {
  local log until=$((SECONDS + 600))
  log=$(mktemp)
  until as_root env LC_ALL=C apt-get update -q >"$log" 2>&1; do
    if ! grep -q 'Could not get lock' "$log" || ((SECONDS > until)); then
      cat "$log" >&2
      rm -f "$log"
      fail "apt-get update failed (see above)."
    fi
    say "another apt is at work; waiting for it"
    sleep 5
  done
  rm -f "$log"
}

install_missing() {
  local packages
  mapfile -t packages < <(missing_packages | sort -u)
  if ((${#packages[@]} == 0)); then return; fi
  if ! command -v apt-get >/dev/null; then
    fail "missing here: ${packages[*]} (Debian's names), and there is no apt-get: please install them."
  fi
  need_root "to install ${packages[*]}"
  say "apt-get update"
  apt_update
  say "apt-get install ${packages[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
    -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "${packages[@]}" >/dev/null ||
    fail "apt-get could not install: ${packages[*]}"
  mapfile -t packages < <(missing_packages | sort -u)
  if ((${#packages[@]} > 0)); then
    fail "installed, and still not found in PATH: ${packages[*]}"
  fi
}

# ready_fuse: the device is there on any Debian but not in most containers.
ready_fuse() {
  if [[ -c /dev/fuse ]]; then return; fi
  if command -v modprobe >/dev/null; then
    need_root "modprobe fuse"
    say "modprobe fuse"
    as_root modprobe fuse || true
  fi
  [[ -c /dev/fuse ]] || fail "there is no /dev/fuse, so nothing can be mounted here." \
    "On a machine: as root,  modprobe fuse  (a kernel without that module needs another one)." \
    "In a container: start it with  --device /dev/fuse --cap-add SYS_ADMIN"
}

groups=("$@")
((${#groups[@]} > 0)) || fail "usage: $0 GROUP... (run, load, race, proto, image, e2e)"
missing_packages >/dev/null
install_missing
for group in "${groups[@]}"; do
  if [[ $group == run ]]; then ready_fuse; fi
done
