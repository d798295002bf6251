#!/usr/bin/env bash
# What a person types: curl against the routes, bodies compared as text.
set -euo pipefail

fail() { echo "curl: $*" >&2; exit 1; }
auth=(-H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json")
call='{"model": "davinci-002", "prompt": "The capital of France is", "max_tokens": 3, "temperature": 0'

body=$(curl -sS "${auth[@]}" "$MILLRACE_URL/v1/completions" -d "$call}")
[[ $body == *'"text":" Paris'* && $body == *'"object":"text_completion"'* ]] || fail "no completion: $body"

stream=$(curl -sS -N "${auth[@]}" "$MILLRACE_URL/v1/completions" -d "$call, \"stream\": true}")
[[ $stream == 'data: {'* && $stream == *$'\n\ndata: [DONE]' ]] || fail "no event stream: $stream"

legacy=$(curl -sS "${auth[@]}" "$MILLRACE_URL/v1/engines/davinci-002/completions" -d '{"prompt": "The capital of France is", "max_tokens": 3, "temperature": 0, "stop": null}')
[[ $legacy == *'"text":" Paris'* ]] || fail "legacy route: $legacy"

azure=$(curl -sS -H "api-key: $OPENAI_API_KEY" -H "Content-Type: application/json" \
  "$MILLRACE_URL/openai/deployments/davinci-002/completions?api-version=2024-02-01" -d "$call}")
[[ $azure == *'"text":" Paris'* ]] || fail "deployments route: $azure"

status() { curl -sS -o /dev/null -w '%{http_code}' "$@"; }
[[ $(status "$MILLRACE_URL/health") == 200 ]] || fail "health"
[[ $(status "$MILLRACE_URL/v1/models") == 401 ]] || fail "models without a key"
[[ $(status "$MILLRACE_URL/nowhere") == 401 ]] || fail "an unknown path without a key"
[[ $(status "${auth[@]}" "$MILLRACE_URL/nowhere") == 404 ]] || fail "an unknown path"
[[ $(status "${auth[@]}" "$MILLRACE_URL/v1/completions") == 405 ]] || fail "GET of a POST route"
[[ $(status -H "Authorization: Bearer $OPENAI_API_KEY" "$MILLRACE_URL/v1/completions" -d "$call}") == 415 ]] || fail "form body"
[[ $(status "${auth[@]}" "$MILLRACE_URL/v1/completions" -d '{') == 400 ]] || fail "broken JSON"

tokens=$(curl -sS "${auth[@]}" "$MILLRACE_URL/tokenize" -d '{"prompt": "The capital of France is"}')
[[ $tokens == *'"tokens":[504,3575,282,4649,314]'* ]] || fail "tokenize: $tokens"
text=$(curl -sS "${auth[@]}" "$MILLRACE_URL/detokenize" -d '{"tokens": [504, 3575, 282]}')
[[ $text == *'"prompt":"The capital of"'* ]] || fail "detokenize: $text"

metrics=$(curl -sS "$MILLRACE_URL/metrics")
[[ $metrics == *'vllm:num_requests_running{'* ]] || fail "metrics"
echo "curl: 13 checks passed"
