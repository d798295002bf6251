#!/usr/bin/env bash
# The second question of a dialogue, with its history. OPENAI_BASE_URL and OPENAI_API_KEY say where the server is, and who asks.
set -euo pipefail
curl --fail-with-body --silent --show-error "$OPENAI_BASE_URL/chat/completions" \
  --header "Authorization: Bearer $OPENAI_API_KEY" --header "Content-Type: application/json" \
  --data '{"model": "gpt-3.5-turbo-instruct", "max_completion_tokens": 80, "temperature": 0, "messages": [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "The capital of France is Paris."},
    {"role": "user", "content": "And what is it famous for?"}]}'
