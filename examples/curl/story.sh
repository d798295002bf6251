#!/usr/bin/env bash
# A story. OPENAI_BASE_URL and OPENAI_API_KEY say where the server is, and who asks.
set -euo pipefail
curl --fail-with-body --silent --show-error "$OPENAI_BASE_URL/completions" \
  --header "Authorization: Bearer $OPENAI_API_KEY" --header "Content-Type: application/json" \
  --data '{"model": "text-davinci-002", "prompt": "Tell me a story about a robot.", "max_tokens": 150, "temperature": 0.5}'
