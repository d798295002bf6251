# Sourced by the steps of a release: what they need, installed where it is missing, and names that they share.
# Debug builds of the tools: they run for seconds, and compile in half the time.
cache=${CACHE:-.cache}
out=dist
# What operators ask for is in a release, as in the container image.
features=otel,redis
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
# The same archive from the same commit, whenever it is made.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

fail() { echo "$(basename "$0"): $*" >&2; exit 1; }

need() {
  command -v "$1" >/dev/null || cargo install --locked --debug --quiet "$1"
}

# Zig's compiler is a C compiler and linker for any libc; PyPI has it as a package.
need_zig() {
  need cargo-zigbuild
  [ -x "$cache/zig/bin/python" ] || python3 -m venv "$cache/zig"
  "$cache/zig/bin/python" -m ziglang version >/dev/null 2>&1 || "$cache/zig/bin/pip" install --quiet "ziglang==0.17.1"
  # cargo-zigbuild looks for the package in the python3 that it finds first.
  PATH="$PWD/$cache/zig/bin:$PATH"
  [[ $cache != /* ]] || PATH="$cache/zig/bin:$PATH"
}

# The archive of a target, without the glibc's version, which is a promise of the build and no part of the platform.
archive_of() { echo "$out/millrace-$version-$(platform_of "$1").tar.gz"; }
platform_of() { sed 's/\.[0-9.]*$//' <<<"$1"; }
