// Vercel's AI SDK over @ai-sdk/openai-compatible: chats, objects, tools, completions, errors.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateObject, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";
import * as qwen from "./qwen.mjs";

// As the provider's documentation has it for a server that keeps to schemas.
const options = { name: "millrace", includeUsage: true, supportsStructuredOutputs: true };
const small = createOpenAICompatible({ ...options, baseURL: process.env.OPENAI_BASE_URL, apiKey: process.env.OPENAI_API_KEY });
const tools = createOpenAICompatible({ ...options, ...qwen.server });
const name = "smollm2-135m-instruct";
const call = { model: small(name), prompt: "What is the capital of France?", maxOutputTokens: 16, temperature: 0, maxRetries: 0 };
const City = z.object({ name: z.string().max(20), size: z.enum(["small", "large"]), rivers: z.number().int().min(0).max(9) });
const cityCall = { ...call, prompt: "Describe Paris.", temperature: 1, seed: 1, maxOutputTokens: 80 };

test("whole and streamed texts agree", async () => {
  const whole = await generateText({ ...call, instructions: "You are a helpful assistant." });
  assert.equal(whole.usage.totalTokens, whole.usage.inputTokens + whole.usage.outputTokens);
  const streamed = streamText({ ...call, instructions: "You are a helpful assistant." });
  let text = "";
  for await (const part of streamed.textStream) text += part;
  assert.equal(text, whole.text);
  assert.equal(await streamed.finishReason, whole.finishReason);
  assert.equal((await streamed.usage).totalTokens, whole.usage.totalTokens);
});

test("objects are those of their schema, whole and streamed", async () => {
  const output = Output.object({ schema: City });
  const whole = await generateText({ ...cityCall, output });
  assert.deepEqual(City.parse(whole.output), whole.output);
  const streamed = streamText({ ...cityCall, output });
  const grown = [];
  for await (const part of streamed.partialOutputStream) grown.push(part);
  assert.deepEqual(grown.at(-1), whole.output);
  assert.deepEqual(await streamed.output, whole.output);
  // The older name of the same.
  const { object } = await generateObject({ ...cityCall, schema: City });
  assert.deepEqual(object, whole.output);
});

const weather = (asked) =>
  tool({
    description: qwen.description,
    inputSchema: qwen.parameters,
    execute: async ({ city }) => {
      asked.push(city);
      return { temperature_celsius: qwen.celsius };
    },
  });
const toolCall = { model: tools(qwen.model), prompt: qwen.ask, maxOutputTokens: 80, temperature: 0, maxRetries: 0 };
// Otherwise the small model may go on calling.
const answerNext = ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "auto" : "none" });

test("a tool is called and its result read, whole and streamed", async () => {
  const asked = [];
  const body = { ...toolCall, tools: { get_weather: weather(asked) }, stopWhen: isStepCount(2), prepareStep: answerNext };
  const whole = await generateText(body);
  assert.deepEqual(whole.steps.map((step) => step.finishReason), ["tool-calls", "stop"]);
  assert.match(whole.text, /17/);
  const streamed = streamText(body);
  await streamed.consumeStream();
  assert.equal(await streamed.text, whole.text);
  assert.deepEqual(asked, ["Oslo", "Oslo"]);
});

test("a call can be required, of any tool or of one", async () => {
  for (const toolChoice of ["required", { type: "tool", toolName: "get_weather" }]) {
    const { toolCalls, finishReason } = await generateText({ ...toolCall, tools: { get_weather: weather([]) }, toolChoice });
    assert.equal(toolCalls[0].toolName, "get_weather");
    assert.equal(typeof toolCalls[0].input.city, "string");
    assert.equal(finishReason, "tool-calls");
  }
});

test("completion models complete, whole and streamed", async () => {
  const completion = { ...call, model: small.completionModel("davinci-002"), prompt: "The capital of France is" };
  const whole = await generateText(completion);
  assert.ok(whole.text);
  assert.equal(whole.usage.outputTokens, whole.usage.totalTokens - whole.usage.inputTokens);
  const streamed = streamText(completion);
  await streamed.consumeStream();
  assert.equal(await streamed.text, whole.text);
  assert.equal((await streamed.usage).totalTokens, whole.usage.totalTokens);
});

test("errors show the server's words", async () => {
  const is = (status, words) => (e) => APICallError.isInstance(e) && e.statusCode === status && words.test(e.message);
  await assert.rejects(generateText({ ...call, temperature: 9 }), is(400, /'temperature'/));
  await assert.rejects(generateText({ ...call, model: small("gpt-9") }), is(404, /gpt-9/));
  const stranger = createOpenAICompatible({ ...options, baseURL: process.env.OPENAI_BASE_URL, apiKey: "sk-wrong" });
  await assert.rejects(generateText({ ...call, model: stranger(name) }), is(401, /Incorrect API key/));
});
