#!/usr/bin/env bash
# Unpacks a target's archive, and looks whether what is in it is what a user needs: a binary that starts, answers, and asks
# for no newer glibc than was promised.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/release/tools.sh
target=${1:?name a target, such as x86_64-unknown-linux-gnu.2.17}
archive=$(archive_of "$target")
[ -f "$archive" ] || fail "there is no $archive: make dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "$archive" -C "$work"
root=$(echo "$work"/millrace-*)
binary=$root/millrace

for file in README.md LICENSE config/millrace.toml man/man1/millrace.1 man/man1/millrace-serve.1 \
  completions/millrace.bash completions/_millrace completions/millrace.fish; do
  [ -s "$root/$file" ] || fail "$file is missing in $archive"
done
[ "$("$binary" --version)" = "millrace $version" ] || fail "it does not say that it is version $version"
bash -n "$root/completions/millrace.bash"

needed=$(objdump -T "$binary" 2>/dev/null | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1 || true)
case $target in
  *-gnu.*)
    promised=GLIBC_${target##*-gnu.}
    newest=$(printf '%s\n%s\n' "$needed" "$promised" | sort -V | tail -1)
    [ -n "$needed" ] && [ "$newest" = "$promised" ] || fail "it asks for ${needed:-no glibc at all}, and $promised was promised"
    ;;
  *-musl) [ -z "$needed" ] || fail "it is static and asks for $needed" ;;
esac

# No key: it refuses, with the exit code for that. Features for tests are in no release.
home=$work/home
mkdir "$home"
clean=(env -i PATH="$PATH" HOME="$home")
code=0
"${clean[@]}" "$binary" serve >/dev/null 2>"$work/refusal" || code=$?
[ $code = 2 ] && grep -q MILLRACE_API_KEY "$work/refusal" || fail "without a key it ended with $code"
! "${clean[@]}" MILLRACE_API_KEY=x "$binary" serve fake:vocab=512 >/dev/null 2>&1 || fail "it serves models for tests"
# From the header to the last layer: a small model is loaded, and computes.
"${clean[@]}" MILLRACE_API_KEY=x "$binary" doctor tests/models/llama/model.gguf --port 0 --json >"$work/doctor.json" ||
  fail "doctor: $(cat "$work/doctor.json")"
echo "$archive: $(du -h "$archive" | cut -f1), $(du -h "$binary" | cut -f1) of it the binary, ${needed:-static}"
