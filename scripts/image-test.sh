#!/usr/bin/env bash
# Builds the Dockerfile and starts the image where no container engine runs: buildah with chroot isolation.
#
# The base image of the build stage is made here: a Debian tree with this machine's Rust toolchain, under the name that
# the Dockerfile uses. Needs root on Debian; installs buildah, debootstrap and docker-compose where they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "image-test: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "must run as root"
need=()
for tool in buildah debootstrap docker-compose; do command -v "$tool" >/dev/null || need+=("$tool"); done
[ ${#need[@]} = 0 ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${need[@]}"; }

work=$(mktemp -d)
server=
cleanup() {
  # A server that has ended by itself is no reason to leave the folder behind; what it means for the test was said before.
  [ -z "$server" ] || kill "$server" || true
  chmod -R u+w "$work"
  rm -rf "$work"
}
trap cleanup EXIT
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

echo "-- compose file"
MILLRACE_API_KEY=x docker-compose config --quiet
if refusal=$(env -u MILLRACE_API_KEY docker-compose config --quiet 2>&1); then fail "compose starts without a key"; fi
grep -q "set MILLRACE_API_KEY" <<<"$refusal" || fail "compose's refusal is unclear: $refusal"

echo "-- base image"
base=rust:1-bookworm
if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
  # The host's own package sources and certificates, so that the build works behind the same proxy.
  debootstrap --variant=minbase --include=ca-certificates,gcc,g++,libc6-dev,make bookworm "$work/tree" >"$work/debootstrap.log" \
    || { tail "$work/debootstrap.log"; fail "debootstrap"; }
  cp -a /etc/apt/sources.list* "$work/tree/etc/apt/"
  cp -L /etc/ssl/certs/ca-certificates.crt "$work/tree/etc/ssl/certs/ca-certificates.crt"
  mkdir -p "$work/tree/usr/local/rust"
  tar -C "$(rustc --print sysroot)" --exclude=share -cf - . | tar -C "$work/tree/usr/local/rust" -xf -
  container=$(buildah from scratch)
  buildah add -q "$container" "$work/tree" /
  buildah config --env PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --env SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt --env PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$container"
  buildah commit -q "$container" "$base"
  buildah rm "$container" >/dev/null
  rm -rf "$work/tree"
fi

echo "-- build"
buildah bud --format docker --network host -t millrace:test ${MODEL:+--build-arg MODEL="$MODEL"} .

echo "-- what the image says of itself"
config=$(buildah inspect --type image --format '{{.Docker.Config.User}} {{.Docker.Config.Healthcheck}} {{.Docker.Config.Entrypoint}}' millrace:test)
echo "$config"
[[ $config == 65532:65532* && $config == *healthcheck* ]] || fail "user or health check is missing"

echo "-- start"
container=$(buildah from millrace:test)
root=$(buildah mount "$container")
du -sm "$root" | sed 's/\t.*/ MB in the image/'
if refusal=$(buildah run --user 65532:65532 "$container" -- /millrace serve 2>&1); then fail "serves without a key"; fi
grep -q MILLRACE_API_KEY <<<"$refusal" || fail "the refusal is unclear: $refusal"
port=18765
buildah run --user 65532:65532 --env MILLRACE_API_KEY=sk-image-test --env MILLRACE_PORT=$port --network host "$container" -- /millrace serve &
server=$!
for _ in $(seq 300); do
  if buildah run --env MILLRACE_PORT=$port --network host "$container" -- /millrace healthcheck >/dev/null 2>&1; then break; fi
  kill -0 "$server" || fail "the server ended"
  sleep 0.2
done
answer=$(curl -sS "http://127.0.0.1:$port/v1/completions" -H "Authorization: Bearer sk-image-test" -H "Content-Type: application/json" \
  -d '{"model": "text-davinci-002", "prompt": "Tell me a story about a robot.", "max_tokens": 30, "temperature": 0}')
echo "$answer"
[[ $answer == *'"finish_reason"'* ]] || fail "no answer"
# The server itself, below buildah: the one process of that name that listens on the port.
pkill -TERM -f "^/millrace serve" && wait "$server" || fail "did not end with exit code 0"
server=
buildah rm "$container" >/dev/null
echo "image-test: passed"
