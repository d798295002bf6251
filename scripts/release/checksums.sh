#!/usr/bin/env bash
# SHA-256 of all that a release consists of. A user compares it by `sha256sum --check SHA256SUMS`.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/release/tools.sh
cd "$out"
compgen -G "millrace-*" >/dev/null || fail "there is nothing in $out: make dist"
# What was signed before is not part of it.
ls | grep -vE '^SHA256SUMS|\.sigstore\.json$' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
sha256sum --check --quiet SHA256SUMS
cat SHA256SUMS
