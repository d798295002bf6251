#!/usr/bin/env bash
# Installs Debian's packages of these names, as root or by a sudo that asks for nothing. Fails quietly elsewhere: the caller
# knows better what to say.
set -euo pipefail

as_root=$([ "$(id -u)" = 0 ] || echo "sudo -n")
command -v apt-get >/dev/null && $as_root true 2>/dev/null || exit 1
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
