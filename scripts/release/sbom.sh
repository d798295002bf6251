#!/usr/bin/env bash
# What the binary is made of, as CycloneDX: crates, versions, licences and hashes, of all platforms that are released.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/release/tools.sh
need cargo-cyclonedx
mkdir -p "$out"
# It writes beside Cargo.toml, whatever it is told.
name=millrace-$version.cdx
cargo cyclonedx --quiet --format json --spec-version 1.5 --target all --features "$features" --no-build-deps --override-filename "$name"
mv "$name.json" "$out/"
python3 - "$out/$name.json" <<'PY'
import json, os, pathlib, sys
file = pathlib.Path(sys.argv[1])
# Where it was made is nobody's business, and would make each one different.
file.write_text(file.read_text().replace(f"file://{os.getcwd()}", "file:///millrace"))
bom = json.loads(file.read_text())
parts = bom["components"]
missing = [p["name"] for p in parts if not p.get("licenses")]
print(f"{sys.argv[1]}: {len(parts)} crates, {len(missing)} without a licence {missing or ''}".rstrip())
assert bom["bomFormat"] == "CycloneDX" and len(parts) > 100
PY
