#!/usr/bin/env bash
# Gets what the lab and the gate need, and says in one line each what it does.
#
#   deps.sh [all]    everything (what `make deps` runs)
#   deps.sh tools    the pinned Go tools, linked into .bin/
#   deps.sh lab      the programs the lab runs and the materials it boots
#   deps.sh pin [package...]  write the mirror's current versions and digests into lab/materials.txt, of these only
#   deps.sh mirror   print the archive that the materials come from
#
# Programs are installed by apt-get, which needs root; all else goes without root into a cache outside of the tree,
# ${NESTBOOT_CACHE:-${XDG_CACHE_HOME:-~/.cache}/nestboot}. A second run does nothing and takes a fraction of a second.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${NESTBOOT_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/nestboot}
pins=integration/lab/materials.txt
materials=$cache/materials

say() { printf 'deps: %s\n' "$*"; }
die() { printf 'deps: %s\n' "$*" >&2; exit 1; }

# --- Go tools -------------------------------------------------------------------------------------------------------

go_tools() {
  local dir goversion
  command -v go >/dev/null || die "go is missing: install the Go named in go.mod"
  goversion=$(go env GOVERSION)
  mkdir -p .bin
  while read -r name version path; do
    dir=$cache/tools/$name@$version-$goversion
    if [ ! -x "$dir/$name" ]; then
      say "building $name $version (once per Go version)"
      GOBIN=$dir GOFLAGS='' go install "$path@$version"
    fi
    ln -sfn "$dir/$name" ".bin/$name"
  done <<'TOOLS'
gofumpt v0.9.2 mvdan.cc/gofumpt
staticcheck v0.7.0 honnef.co/go/tools/cmd/staticcheck
golangci-lint v2.11.0 github.com/golangci/golangci-lint/v2/cmd/golangci-lint
TOOLS
}

# --- programs -------------------------------------------------------------------------------------------------------

# programs installs what is missing of the commands and their packages on standard input. It asks by command rather than
# by package: whoever built QEMU himself is served too.
programs() {
  local missing=()
  while read -r command package; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    "${1:-die}" "missing: ${missing[*]}; as root run: apt-get install --no-install-recommends ${missing[*]}"
    return 0
  fi
  say "installing ${missing[*]}"
  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}"; } \
    </dev/null >"$cache/apt-install.log" 2>&1 || { tail -5 "$cache/apt-install.log" >&2; "${1:-die}" "apt-get failed, see $cache/apt-install.log"; }
}

# What it takes to boot a machine.
lab_programs() {
  cat <<'PROGRAMS'
qemu-system-x86_64 qemu-system-x86
dnsmasq dnsmasq-base
ip iproute2
curl curl
openssl openssl
dpkg-deb dpkg
flock util-linux
PROGRAMS
}

# What only tests use: an arm64 machine, and other people's readers of what we write.
test_programs() {
  cat <<'PROGRAMS'
qemu-system-aarch64 qemu-system-arm
systemd-analyze systemd
xorriso xorriso
mdir mtools
fdisk fdisk
file file
PROGRAMS
}

# The compilers of the committed boot programs, where apt has just these: other systems than Debian 12 may not, and
# whoever does not change the programs does not need them.
compilers() {
  while read -r command package; do
    if ! command -v "$command" && apt-cache show "$package"; then echo "$command $package" >&3; fi >/dev/null 2>&1
  done 3>&1 <<'PROGRAMS'
x86_64-linux-gnu-gcc-12 gcc-12
aarch64-linux-gnu-gcc-12 gcc-12-aarch64-linux-gnu
PROGRAMS
}

# --- materials ------------------------------------------------------------------------------------------------------

# mirror prints the base URI of the archive that this machine's own apt uses, from sources in both formats. apt-get
# indextargets would tell, but says nothing on a machine that never ran apt-get update. APT_CONFIG counts.
mirror() {
  local list parts
  command -v apt-config >/dev/null || die "apt is missing: the materials come from Debian packages"
  eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
  {
    cat "$list" "$parts"/*.list 2>/dev/null | one_line_sources || true
    for file in "$parts"/*.sources; do [ ! -e "$file" ] || deb822_sources <"$file"; done
  } | awk '$1 ~ /^(https?|file):/ && $2 !~ /[-\/]/ && / main( |$)/ { sub("/*$", "/", $1); print $1; exit }'
}

# one_line_sources and deb822_sources print "uri suite component..." for each archive of binary packages.
one_line_sources() {
  awk '$1 == "deb" { sub(/^[ \t]*deb[ \t]+(\[[^]]*\][ \t]+)?/, ""); print }'
}

deb822_sources() {
  awk '
    function flush(   i, j, u, s) {
      if ((" " f["types"] " ") ~ / deb / && tolower(f["enabled"]) !~ /no|false|0/)
        for (i = split(f["uris"], u); i > 0; i--)
          for (j = split(f["suites"], s); j > 0; j--) print u[i], s[j], f["components"]
      delete f
    }
    /^[ \t]*$/ { flush(); next }
    /^#/ { next }
    /^[ \t]/ { f[key] = f[key] " " $0; next }
    { key = tolower($0); sub(/:.*/, "", key); sub(/^[^:]*:[ \t]*/, ""); f[key] = $0 }
    END { flush() }'
}

rows() { grep -vE '^[[:space:]]*(#|$)' "$pins"; }

# private_apt writes an apt configuration of our own, with state, lists and sources in the cache. The system's proxy and
# certificate settings still count (apt reads /etc/apt/apt.conf.d first), its lists and package database are not touched.
private_apt() {
  local base
  base=$(mirror)
  [ -n "$base" ] || die "no Debian archive in this machine's apt sources: add one (suite and component main)"
  mkdir -p "$cache"/apt/{lists,archives}/partial "$cache/apt/state" "$cache/debs"
  rows | awk '{print $2}' | sort -u | while read -r suite; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $base $suite main"
  done >"$cache/apt/sources.list"
  cat >"$cache/apt/apt.conf" <<CONF
Dir::State "$cache/apt/state";
Dir::State::lists "$cache/apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$cache/apt/archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "$cache/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
  say "reading the package index of $(rows | awk '{print $2}' | sort -u | xargs)"
  apt-get -c "$cache/apt/apt.conf" -qq update || die "apt-get update failed with the sources in $cache/apt/sources.list"
}

# offer prints "file version sha256" of a package in a suite, at the version given or else the current one.
offer() {
  local package=$1 suite=$2 version=${3:-} file digest
  read -r _ file _ digest < <(apt-get -c "$cache/apt/apt.conf" -t "$suite" download --print-uris \
    "$package${version:+=$version}" 2>/dev/null) || return 1
  version=${file#*_}
  version=${version%_*}
  echo "$file ${version//%3a/:} ${digest#SHA256:}"
}

# successor prints the name under which a package goes on: kernels carry their ABI number in the name.
successor() {
  case $1 in
  linux-image-*-cloud-amd64)
    apt-cache -c "$cache/apt/apt.conf" -o APT::Default-Release="$2" show --no-all-versions linux-image-cloud-amd64 |
      sed -nE 's/^Depends: (linux-image-[^ ,]+).*/\1/p'
    ;;
  *) echo "$1" ;;
  esac
}

# cached prints the path of the pinned package's file where it was downloaded before.
cached() {
  local file
  for file in "$cache/debs/$1_${3//:/%3a}_"*.deb; do
    echo "$4  $file" | sha256sum --check --status 2>/dev/null && echo "$file" && return
  done
  return 1
}

# fetch downloads one pinned package into the cache and prints the path of its file.
fetch() {
  local package=$1 suite=$2 version=$3 digest=$4 name=$1 file current now
  if ! read -r file current now < <(offer "$package" "$suite" "$version"); then
    name=$(successor "$package" "$suite")
    read -r file current now < <(offer "$name" "$suite") || die "$package: not in suite $suite of this machine's mirror"
    say "WARNING: $package $version is gone from the mirror, taking $name $current (signed by its index); run deps.sh pin" >&2
    version=$current digest=$now
  fi
  if [ ! -e "$cache/debs/$file" ]; then
    (cd "$cache/debs" && apt-get -c "$cache/apt/apt.conf" -qq download "$name=$version") || die "$name $version: download failed"
  fi
  if ! echo "$digest  $cache/debs/$file" | sha256sum --check --status; then
    rm -f "$cache/debs/$file"
    die "$name $version: its SHA-256 is not the pinned one, refused; see $pins"
  fi
  echo "$cache/debs/$file"
}

# inventory lists what lies in the materials with sizes, so that a removed or shortened file is noticed.
inventory() { (cd "$1" && find . -mindepth 2 -printf '%y %s %p\n' | sort | sha256sum); }

key() { cat integration/deps.sh "$pins" | sha256sum; }

fetch_materials() {
  local file
  if [ -e "$materials/stamp" ] && [ "$(cat "$materials/stamp")" = "$(key; inventory "$materials")" ]; then
    return 0
  fi
  while read -r row; do
    # shellcheck disable=SC2086
    cached $row >/dev/null || { private_apt; break; }
  done < <(rows)
  rm -rf "$materials.new"
  while read -r row; do
    # shellcheck disable=SC2086
    file=$(cached $row || fetch $row)
    suite=$(cut -d' ' -f2 <<<"$row")
    say "unpacking $(basename "$file")"
    mkdir -p "$materials.new/$suite" "$materials.new/debs/$suite"
    dpkg-deb --extract "$file" "$materials.new/$suite"
    ln "$file" "$materials.new/debs/$suite/" # which of the cached files are the pinned ones
  done < <(rows)
  { key; inventory "$materials.new"; } >"$materials.new/stamp"
  rm -rf "$materials"
  mv "$materials.new" "$materials"
}

# pin keeps comments, packages and suites of the list and renews versions and digests: all, or of the packages named. A
# new row starts as "package suite".
pin() {
  local name current digest
  private_apt
  while IFS= read -r line; do
    read -r package suite _ <<<"$line" || true
    if [[ $line =~ ^[[:space:]]*(#|$) ]] || { [ $# -gt 0 ] && [[ " $* " != *" $package "* ]]; }; then
      printf '%s\n' "$line"
      continue
    fi
    name=$(successor "$package" "$suite")
    read -r _ current digest < <(offer "$name" "$suite") || die "$name: not in suite $suite"
    printf '%s %s %s %s\n' "$name" "$suite" "$current" "$digest"
  done <"$pins" >"$cache/materials.txt"
  cp "$cache/materials.txt" "$pins"
  say "wrote $pins"
}

# --------------------------------------------------------------------------------------------------------------------

mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ] && { [ ! -e "$cache/lock" ] || [ -w "$cache/lock" ]; } ||
  die "can't write $cache: set NESTBOOT_CACHE to a folder of yours"
exec 9>"$cache/lock"
flock -w 900 9 || die "another deps.sh holds $cache/lock"
case ${1:-all} in
all) { lab_programs; test_programs; } | programs; compilers | programs say; fetch_materials; go_tools ;;
lab) lab_programs | programs; fetch_materials ;;
tools) go_tools ;;
pin) lab_programs | programs; pin "${@:2}" ;;
mirror) mirror ;;
*) die "usage: deps.sh [all|tools|lab|pin|mirror]" ;;
esac
