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
find_chromium >/dev/null || ../../scripts/install-debian.sh chromium fonts-dejavu-core || true
CHROMIUM=$(find_chromium) || {
  echo "the playground's tests need Chromium: install it (Debian: apt-get install chromium) or name it in CHROMIUM" >&2
  exit 1
}
export CHROMIUM
exec node --test --test-reporter=spec
