#!/usr/bin/env bash
# What the Rust tests need and cargo cannot bring: libfaketime, under which a server's clock jumps, and HAProxy and nginx to
# stand in front of it. Installed where they are missing, on Debian.
set -euo pipefail
cd "$(dirname "$0")/.."

# The tests that need it are for Linux.
[ "$(uname)" = Linux ] || exit 0

# Where tests/it/clock.rs looks.
has_faketime() { compgen -G "/usr/lib*/faketime/libfaketime.so.1" || compgen -G "/usr/lib/*/faketime/libfaketime.so.1" || compgen -G "/usr/local/lib/faketime/libfaketime.so.1"; } >/dev/null
has_faketime || scripts/install-debian.sh libfaketime || true
has_faketime || {
  echo "the tests need libfaketime: install it (Debian: apt-get install libfaketime, Fedora: dnf install libfaketime)" >&2
  exit 1
}

# Debian has them where only root looks.
export PATH="$PATH:/usr/sbin"
for proxy in haproxy nginx; do
  command -v "$proxy" >/dev/null || scripts/install-debian.sh "$proxy" || true
  command -v "$proxy" >/dev/null || {
    echo "the tests need $proxy: install it" >&2
    exit 1
  }
done
