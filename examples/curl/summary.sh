#!/usr/bin/env bash
# A summary, as server-sent events. OPENAI_BASE_URL and OPENAI_API_KEY say where the server is, and who asks.
set -euo pipefail
text="The mill stands where the river is narrow. In spring the water turns its wheel day and night; in summer the miller waits \
for rain. When the town built a dam upstream, the wheel stood still, and the miller's daughter put a turbine in its place."
curl --fail-with-body --silent --show-error --no-buffer "$OPENAI_BASE_URL/completions" \
  --header "Authorization: Bearer $OPENAI_API_KEY" --header "Content-Type: application/json" \
  --data "{\"model\": \"text-davinci-002\", \"prompt\": \"Summarise in one sentence:\\n\\n$text\", \"max_tokens\": 80,
    \"temperature\": 0, \"stream\": true}"
