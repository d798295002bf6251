#!/usr/bin/env bash
# The playground in headless Chromium, and its modules in Node. Wants the server of tests/sdk/run.py and its key in the
# environment, and the binary and the model to start others. Chromium: $CHROMIUM, or one on the path, or Debian's.
set -euo pipefail
cd "$(dirname "$0")"

cmp -s package-lock.json node_modules/.complete || {
  npm ci --silent --no-audit --no-fund
  cp package-lock.json node_modules/.complete
}

find_chromium() { command -v "${CHROMIUM:-chromium}" || command -v chromium-browser || command -v google-chrome; }
if ! find_chromium >/dev/null; then
  as_root=$([ "$(id -u)" = 0 ] || echo "sudo -n")
  if command -v apt-get >/dev/null && $as_root true 2>/dev/null; then
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
  fi
fi
CHROMIUM=$(find_chromium) || {
  echo "the playground's tests need Chromium: install it (Debian: apt-get install chromium) or name it in CHROMIUM" >&2
  exit 1
}
export CHROMIUM
exec node --test --test-reporter=spec
