// Chats of the newest openai-node: whole, streamed, its helpers for zod and tools, errors.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai"; // reads OPENAI_API_KEY and OPENAI_BASE_URL
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import * as qwen from "./qwen.mjs";

const client = new OpenAI({ maxRetries: 0 });
const toolsClient = new OpenAI({ ...qwen.server, maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const call = { model: "smollm2-135m-instruct", messages, max_completion_tokens: 16, temperature: 0 };
const toolCall = { model: qwen.model, messages: [{ role: "user", content: qwen.ask }], max_completion_tokens: 80, temperature: 0 };
const City = z.object({ name: z.string().max(20), size: z.enum(["small", "large"]), rivers: z.number().int().min(0).max(9) });
const cityCall = { ...call, messages: [{ role: "user", content: "Describe Paris." }], temperature: 1, seed: 1, max_completion_tokens: 80 };

test("whole and streamed answers agree", async () => {
  const whole = await client.chat.completions.create(call);
  assert.equal(whole.choices[0].message.role, "assistant");
  let text = "";
  let usage = null;
  for await (const chunk of await client.chat.completions.create({ ...call, stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.total_tokens, whole.usage.total_tokens);
});

test("a zod schema is parsed, whole and streamed", async () => {
  const format = zodResponseFormat(City, "city");
  const whole = await client.chat.completions.parse({ ...cityCall, response_format: format });
  assert.deepEqual(City.parse(whole.choices[0].message.parsed), whole.choices[0].message.parsed);
  let text = "";
  const stream = client.chat.completions.stream({ ...cityCall, response_format: format }).on("content", (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.deepEqual(final.choices[0].message.parsed, whole.choices[0].message.parsed);
  assert.equal(text, whole.choices[0].message.content);
});

test("arguments of calls are parsed by their zod schema", async () => {
  const tools = [zodFunction({ name: "city", parameters: City })];
  for (const tool_choice of ["required", { type: "function", function: { name: "city" } }]) {
    const body = { ...cityCall, tools, tool_choice, parallel_tool_calls: false };
    const answer = await client.chat.completions.parse(body);
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
    const parsed = answer.choices[0].message.tool_calls[0].function.parsed_arguments;
    assert.deepEqual(City.parse(parsed), parsed);
    const streamed = await client.chat.completions.stream(body).finalChatCompletion();
    assert.deepEqual(streamed.choices[0].message.tool_calls[0].function.parsed_arguments, parsed);
  }
});

for (const stream of [false, true]) {
  test(`runTools calls, gives the result back and ends with the answer${stream ? ", streamed" : ""}`, async () => {
    const asked = [];
    const weather = zodFunction({
      name: "get_weather",
      description: qwen.description,
      parameters: qwen.parameters,
      function: ({ city }) => {
        asked.push(city);
        return { temperature_celsius: qwen.celsius };
      },
    });
    const runner = toolsClient.chat.completions.runTools({ ...toolCall, stream, tools: [weather] });
    const text = await runner.finalContent();
    // The model may ask twice; it need not stop asking.
    assert.equal(asked[0], "Oslo");
    assert.match(text, /17/);
    assert.deepEqual(runner.messages.slice(0, 3).map((m) => m.role), ["user", "assistant", "tool"]);
  });
}

test("errors have their classes, codes and parameters", async () => {
  const create = (change) => client.chat.completions.create({ ...call, ...change });
  await assert.rejects(create({ top_p: 2 }), (e) => e instanceof OpenAI.BadRequestError && e.param === "top_p");
  await assert.rejects(create({ messages: [{ role: "king", content: "x" }] }), (e) => e.status === 400 && e.param === "messages[0].role");
  await assert.rejects(create({ max_completion_tokens: 1e6 }), (e) => e.code === "context_length_exceeded" && e.param === "messages");
  await assert.rejects(create({ model: "nope", stream: true }), (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found");
});
