#!/usr/bin/env bash
# From a fresh clone to a served model: fetch, build, make a key on the first run, serve.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "make run needs Rust: https://rustup.rs" >&2; exit 1; }
cargo build --release --locked --bin millrace
bin=${CARGO_TARGET_DIR:-target}/release/millrace

"$bin" pull >/dev/null

keys=.cache/run/keys.toml secret=.cache/run/key
umask 077
mkdir -p .cache/run
if [ ! -s "$secret" ] || [ ! -s "$keys" ]; then
  rm -f "$keys"
  "$bin" keys add make-run --file "$keys" >"$secret"
fi

port=${MILLRACE_PORT:-8000}
(
  # Printed when it works, below the banner.
  until "$bin" healthcheck --url "http://127.0.0.1:$port" >/dev/null 2>&1; do
    # The server, which took this shell's place, has ended and said why: there is nothing to announce.
    kill -0 $$ 2>/dev/null || exit 0
    sleep 0.2
  done
  cat >&2 <<TEXT

Ready. Your key is in $secret; paste this into another terminal:

curl http://127.0.0.1:$port/v1/completions -H "Authorization: Bearer $(cat "$secret")" -H "Content-Type: application/json" \\
  -d '{"model": "text-davinci-002", "prompt": "Tell me a story about a robot.", "max_tokens": 150, "temperature": 0.5}'

TEXT
) &
exec "$bin" serve --port "$port" --api-key-file "$keys" "$@"
