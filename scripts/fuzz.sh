#!/usr/bin/env bash
# Fuzzes the targets of tests/fuzz in turn, each for so many seconds: scripts/fuzz.sh SECONDS [TARGET...]
#
# No sanitizer: none of our code that the targets reach is unsafe, and without one libFuzzer's instrumentation is
# nothing but options that the stable compiler takes. Overflows and debug assertions are checked.
set -euo pipefail
cd "$(dirname "$0")/.."

duration_s=$1
shift
targets=("$@")
[ $# -gt 0 ] || targets=(gguf shards folder request tokenizer stream grammar keys)
cache=$PWD/.cache/fuzz
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin" CARGO_INCREMENTAL=0

command -v cargo-fuzz >/dev/null || cargo install --locked --debug --quiet cargo-fuzz
triple=$(rustc -vV | sed -n 's/^host: //p')
cargo fuzz build --fuzz-dir tests/fuzz --target-dir "$cache/target" --target "$triple" --sanitizer none \
  --codegen-units 16

max_len() {
  case $1 in
    gguf | shards | folder) echo 16384 ;;
    grammar) echo 1024 ;;
    *) echo 4096 ;;
  esac
}

failed=0
for target in "${targets[@]}"; do
  # What is found grows in the first folder; the seeds are only read.
  corpus=$cache/corpus/$target found=$cache/found/$target log=$cache/$target.log
  mkdir -p "$corpus" "$found"
  echo "$target: $duration_s s"
  if "$cache/target/$triple/release/$target" "$corpus" "tests/fuzz/seeds/$target" \
    -max_total_time="$duration_s" -max_len="$(max_len "$target")" -timeout=10 -rss_limit_mb=1024 \
    -artifact_prefix="$found/" -print_final_stats=1 >"$log" 2>&1; then
    grep -E 'cov: ' "$log" | tail -n 1
  else
    failed=1
    tail -n 30 "$log"
    echo "$target failed; its input lies in $found. Again: $cache/target/$triple/release/$target FILE" >&2
  fi
done
exit $failed
