#!/usr/bin/env bash
# A translation. OPENAI_BASE_URL and OPENAI_API_KEY say where the server is, and who asks.
set -euo pipefail
curl --fail-with-body --silent --show-error "$OPENAI_BASE_URL/completions" \
  --header "Authorization: Bearer $OPENAI_API_KEY" --header "Content-Type: application/json" \
  --data '{"model": "text-davinci-002", "prompt": "Translate this into French: Good morning, how are you?",
    "max_tokens": 60, "temperature": 0}'
