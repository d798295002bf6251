// The newest openai-node: whole, streamed, errors.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai"; // reads OPENAI_API_KEY and OPENAI_BASE_URL

const client = new OpenAI({ maxRetries: 0 });
const call = { model: "davinci-002", prompt: "The capital of France is", max_tokens: 12, temperature: 0 };

test("whole and streamed answers agree", async () => {
  const whole = await client.completions.create(call);
  assert.match(whole.choices[0].text, /^ Paris/);
  assert.equal(whole.usage.total_tokens, 17);
  assert.ok(whole._request_id);
  let text = "";
  let usage = null;
  const stream = await client.completions.create({ ...call, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.text ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].text);
  assert.equal(usage.total_tokens, 17);
});

test("a stream that is left does not disturb the next", async () => {
  for (let i = 0; i < 5; i++) {
    const stream = await client.completions.create({ ...call, max_tokens: 500, stream: true, ignore_eos: true });
    for await (const _ of stream) break;
  }
  const answer = await client.completions.create(call);
  assert.match(answer.choices[0].text, /^ Paris/);
});

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("davinci-002"));
});

test("errors have their classes, codes and parameters", async () => {
  await assert.rejects(client.completions.create({ ...call, top_p: 2 }), (e) => e instanceof OpenAI.BadRequestError && e.param === "top_p");
  await assert.rejects(client.completions.create({ ...call, model: "nope" }), (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found");
  const stranger = new OpenAI({ apiKey: "sk-wrong", maxRetries: 0 });
  await assert.rejects(stranger.completions.create(call), (e) => e instanceof OpenAI.AuthenticationError && e.code === "invalid_api_key");
});
