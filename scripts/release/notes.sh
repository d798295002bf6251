#!/usr/bin/env bash
# What the changelog says of a version, on stdout: the text of its release. Fails unless the tag is the version of Cargo.toml.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/release/tools.sh
tag=${1:?name a tag, such as v1.2.3}
[ "$tag" = "v$version" ] || fail "the tag $tag is not the version of Cargo.toml, $version"
notes=$(awk -v version="$version" '/^## / { gsub(/[][]/, "", $2); found = $2 == version; next } found' CHANGELOG.md)
[ -n "${notes//[[:space:]]/}" ] || fail "CHANGELOG.md has no part '## $version'"
printf '%s\n' "$notes"
