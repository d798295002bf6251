#!/usr/bin/env bash
# One archive of a release: the binary, its manual pages and completions, the configuration, what one must know.
#
#   scripts/release/dist.sh x86_64-unknown-linux-gnu.2.17    for Linux with a glibc of 2.17 (2012) or newer
#   scripts/release/dist.sh x86_64-unknown-linux-musl        static; needs `rustup target add` of it
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/release/tools.sh
target=${1:?name a target, such as x86_64-unknown-linux-gnu.2.17}
platform=$(platform_of "$target")
need_zig

cargo zigbuild --profile dist --locked --features "$features" --bin millrace --target "$target"
binary=${CARGO_TARGET_DIR:-target}/$platform/dist/millrace

# The pages and completions come from the binary itself, so it is built where it can run.
"$binary" --version >/dev/null || fail "$binary does not run here: build it on a machine of its own kind"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/millrace-$version-$platform
mkdir -p "$root"/{man/man1,completions,config}
install -m 755 "$binary" "$root/millrace"
cp README.md LICENSE CHANGELOG.md SECURITY.md "$root/"
cp -R config/. "$root/config/"
"$binary" man --dir "$root/man/man1"
"$binary" completions bash >"$root/completions/millrace.bash"
"$binary" completions zsh >"$root/completions/_millrace"
"$binary" completions fish >"$root/completions/millrace.fish"

mkdir -p "$out"
archive=$(archive_of "$target")
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+w,go-w \
  -C "$work" -cf - "$(basename "$root")" | gzip -n -9 >"$archive"
ls -l "$archive"
