// The modules of the playground that need no browser.
import assert from "node:assert/strict";
import test from "node:test";
import { Answer, fromChat, fromCompletion, isPartial, isSpecial } from "../../src/http/webui/answer.mjs";
import { encode, isSendable } from "../../src/http/webui/api.mjs";
import { stopSequences } from "../../src/http/webui/settings.mjs";
import { toCurl, toPython } from "../../src/http/webui/snippets.mjs";
import { events } from "../../src/http/webui/sse.mjs";

/** A body that arrives in these pieces. */
const body = (...pieces) => new ReadableStream({
  start(controller) {
    for (const piece of pieces) controller.enqueue(typeof piece === "string" ? new TextEncoder().encode(piece) : piece);
    controller.close();
  },
});

async function all(stream) {
  const found = [];
  for await (const event of stream) found.push(event);
  return found;
}

const shown = (answer) => answer.tokens.map(({ start, end }) => answer.text.slice(start, end));
const part = (text, tokens, finish = null, ids = tokens.map((_, i) => i), promptIds = null) => ({ text, tokens, finish, ids, promptIds });
const at = (offset, label) => ({ offset, label, logprob: -1, top: [] });
const bare = (label, bytes = [...Buffer.from(label)]) => ({ label, bytes, logprob: -1, top: [] });

test("events come whole however the bytes are cut", async () => {
  const bytes = new TextEncoder().encode(': ping\n\ndata: {"a":"mühle"}\n\ndata:{"b":[1]}\n\ndata: [DONE]\n\n');
  for (let cut = 0; cut <= bytes.length; cut++) {
    const found = await all(events(body(bytes.slice(0, cut), bytes.slice(cut))));
    assert.deepEqual(found, [{ a: "mühle" }, { b: [1] }]);
  }
});

test("a stream that ends without its mark is an error", async () => {
  await assert.rejects(all(events(body('data: {"a":1}\n\n'))), /closed before/);
});

test("tokens of a completion lie where their offsets say, in characters", () => {
  const answer = new Answer();
  answer.add(part("A 🤖", [at(0, "A"), at(1, " 🤖")]));
  answer.add(part("é.", [at(3, "é"), at(4, ".")], "length"));
  assert.deepEqual(shown(answer), ["A", " 🤖", "é", "."]);
});

test("a text that is held back comes to its tokens later, and a stop sequence takes the rest", () => {
  const answer = new Answer();
  answer.add(part("one", [at(0, "one"), at(3, " st")]));
  answer.add(part("", [at(6, "o")]));
  assert.deepEqual(shown(answer), ["one", "", ""]);
  answer.add(part(" sto", []));
  answer.add(part(" ", [at(7, " p")], "stop"));
  assert.equal(answer.text, "one sto ");
  assert.deepEqual(shown(answer), ["one", " st", "o", " "]);
});

test("a character of several tokens belongs to one of them, and the end has none", () => {
  const robot = [...Buffer.from("🤖")];
  const pieces = [bare("Hi"), bare("bytes:\\xf0\\x9f", robot.slice(0, 2)), bare("bytes:\\xa4\\x96", robot.slice(2)), bare("<|im_end|>")];
  const answer = new Answer();
  answer.add(part("Hi", pieces.slice(0, 2)));
  answer.add(part("🤖", pieces.slice(2), "stop"));
  assert.deepEqual(shown(answer), ["Hi", "", "🤖", ""]);
});

test("chat's tokens find their text where the first space was dropped", () => {
  const answer = new Answer();
  answer.add(part("Once", [bare(" Once")]));
  answer.add(part(" upon", [bare(" upon")], "length"));
  assert.deepEqual(shown(answer), ["Once", " upon"]);
});

test("a replaced token cuts the answer there, and what follows counts from it", () => {
  const answer = new Answer();
  answer.add(part("The cat sat", [at(0, "The"), at(3, " cat"), at(7, " sat")], "length"));
  const before = answer.snapshot();
  answer.replace(1, { label: " 🐕", logprob: -2 });
  assert.equal(answer.text, "The 🐕");
  assert.equal(answer.finish, null);
  answer.add(part(" ran", [at(0, " r"), at(2, "an")], "stop"));
  assert.deepEqual(shown(answer), ["The", " 🐕", " r", "an"]);
  assert.equal(answer.tokens[1].picked, true);
  answer.restore(before);
  assert.deepEqual([answer.text, answer.finish, shown(answer)], ["The cat sat", "length", ["The", " cat", " sat"]]);
});

test("an answer goes on by its ids, behind its last whole token", () => {
  const answer = new Answer();
  answer.add(part("The cat", [at(0, "The"), at(3, " cat")], null, [10, 11], [1, 2]));
  assert.deepEqual(answer.prefix(), { ids: [10, 11], rest: "" });
  answer.add(part(" s", [at(7, " sat"), at(11, " on")], "stop", [12, 13]));
  assert.deepEqual(answer.prefix(), { ids: [10, 11], rest: " s" }, "a stop sequence cut a token");
  answer.replace(2, { label: " ran", logprob: -2 });
  assert.deepEqual(answer.prefix(), { ids: [10, 11], rest: " ran" }, "a picked one has no id yet");
  const ended = new Answer();
  ended.add(part("The", [at(0, "The")], null, [10], [1]));
  ended.add(part("", [at(3, "<|im_end|>")], "stop", [2]));
  assert.deepEqual(ended.prefix(), { ids: [10], rest: "" }, "not behind its end");
  ended.goOn();
  assert.deepEqual([ended.tokens.length, ended.promptIds], [1, [1]]);
  const bare = new Answer();
  bare.add(part("The", [], null, [10]));
  bare.add(part("", [], "stop", [2]));
  assert.deepEqual(bare.prefix(), { ids: [10], rest: "" });
});

test("bytes that are no character are one, and what follows is whose it is", () => {
  const answer = new Answer();
  for (const [label, bytes, text] of [["bytes:\\x9f", [0x9f], "\ufffd"], ["a", [97], "a"], ["bytes:\\xf0\\x9f", [0xf0, 0x9f], ""], [" b", [32, 98], "\ufffd b"]]) {
    answer.add(part(text, [bare(label, bytes)]));
  }
  answer.add(part("", [], "length"));
  assert.deepEqual(shown(answer), ["\ufffd", "a", "", "\ufffd b"]);
  answer.goOn();
  assert.equal(shown(answer).join(""), answer.text);
});

test("an answer that the bound on tokens cut goes on behind all of its ids", () => {
  const robot = [...Buffer.from("🤖")];
  const answer = new Answer();
  answer.add(part("A", [bare("A")], null, [10], [1]));
  // Half of a character: no text yet, but the model has said it.
  answer.add(part("", [bare("bytes:\\xf0\\x9f", robot.slice(0, 2))], "length", [11]));
  assert.deepEqual(answer.prefix(), { ids: [10, 11], rest: "" });
});

test("an answer without probabilities is a text alone", () => {
  const answer = new Answer();
  answer.add(part("plain", []));
  answer.goOn();
  answer.add(part(" text", [], "stop"));
  assert.deepEqual([answer.text, answer.tokens], ["plain text", []]);
});

test("chunks of both endpoints say the same in the same form", () => {
  const completion = fromCompletion({ choices: [{
    index: 1, text: " a", finish_reason: null, token_ids: [7], prompt_token_ids: [1, 2],
    logprobs: { tokens: [" a"], token_logprobs: [-0.5], top_logprobs: [{ " a": -0.5, " b": -1 }], text_offset: [7] },
  }] });
  const chat = fromChat({ choices: [{
    index: 1, delta: { content: " a" }, finish_reason: null, token_ids: [7],
    logprobs: { content: [{ token: " a", logprob: -0.5, bytes: [32, 97], top_logprobs: [{ token: " a", logprob: -0.5 }, { token: " b", logprob: -1 }] }] },
  }] });
  const top = [{ label: " a", logprob: -0.5 }, { label: " b", logprob: -1 }];
  assert.deepEqual(completion, [{ index: 1, text: " a", finish: null, ids: [7], promptIds: [1, 2], tokens: [{ label: " a", logprob: -0.5, top, offset: 7 }] }]);
  assert.deepEqual(chat, [{ index: 1, text: " a", finish: null, ids: [7], promptIds: null, tokens: [{ label: " a", logprob: -0.5, top, bytes: [32, 97] }] }]);
  assert.deepEqual([fromCompletion({ choices: [] }), fromChat({})], [[], []]);
  assert.deepEqual(fromChat({ choices: [{ index: 0, delta: { role: "assistant" }, finish_reason: null }] })[0].text, "");
});

test("special tokens and parts of characters are known by their labels", () => {
  for (const label of ["<|im_end|>", "</s>", "<eos>", "<end_of_turn>"]) assert.ok(isSpecial(label), label);
  for (const label of ["<", "<b>", " <|", "a<|x|>"]) assert.ok(!isSpecial(label), label);
  assert.ok(isPartial("bytes:\\xe2\\x96") && !isPartial("bytes:") && !isPartial("bytes:\\xe2 "));
});

test("seeds keep all their 64 bits", () => {
  assert.equal(encode({ prompt: "x", seed: "9223372036854775807" }), '{"prompt":"x","seed":9223372036854775807}');
  assert.equal(encode({ prompt: "x" }), '{"prompt":"x"}');
});

test("a key that no header can carry is told apart", () => {
  assert.ok(isSendable("sk-aZ09_-") && !isSendable("sk-é") && !isSendable("sk a") && !isSendable("sk\n"));
});

test("stop sequences are lines with escapes", () => {
  assert.deepEqual(stopSequences("\\n\\n\nHuman:\n\n a\\\\n"), ["\n\n", "Human:", " a\\n"]);
});

const REQUEST = {
  base: "http://127.0.0.1:8000/", path: "v1/completions", keyed: true,
  body: { model: "m", prompt: "It's \"it\"\n", stop: ["\n"], repetition_penalty: 1.1, stream: true, seed: "9223372036854775807" },
};

test("the curl line is one that a shell reads", async () => {
  const { execFileSync } = await import("node:child_process");
  const command = `curl() { printf '%s\\0' "$@"; }; ${toCurl(REQUEST)}`;
  const words = execFileSync("bash", ["-c", command], { env: { OPENAI_API_KEY: "sk-x" }, encoding: "utf8" }).split("\0").slice(0, -1);
  assert.deepEqual(words.slice(0, -1), [
    "-N", "http://127.0.0.1:8000/v1/completions", "-H", "Authorization: Bearer sk-x", "-H", "Content-Type: application/json", "-d",
  ]);
  assert.match(words.at(-1), /"seed": 9223372036854775807\n}$/);
  const { seed, ...rest } = REQUEST.body;
  assert.deepEqual({ ...JSON.parse(words.at(-1)), seed }, { ...rest, seed });
});

test("the Python program says what the request says", async () => {
  const { execFileSync } = await import("node:child_process");
  // The SDK's place is taken by one that prints what it is called with.
  const stub = `
import sys, types, json
class Any:
    def __init__(self, **kw): self.kw = kw
    def __getattr__(self, name): return self
    def create(self, **kw): print(json.dumps([self.kw, kw])); return []
sys.modules["openai"] = types.SimpleNamespace(OpenAI=Any)
`;
  const run = (program) => JSON.parse(execFileSync("python3", ["-c", stub + program], { env: { ...process.env, OPENAI_API_KEY: "sk-x" } }));
  const [client, call] = run(toPython({ ...REQUEST, body: { ...REQUEST.body, seed: "7" } }));
  assert.deepEqual(client, { base_url: "http://127.0.0.1:8000/v1", api_key: "sk-x" });
  assert.deepEqual(call, {
    model: "m", prompt: "It's \"it\"\n", stop: ["\n"], stream: true, seed: 7, extra_body: { repetition_penalty: 1.1 },
  });
  const messages = [{ role: "user", content: "Hi" }];
  const chat = run(toPython({ base: REQUEST.base, path: "v1/chat/completions", keyed: false, body: { model: "m", messages, logprobs: true } }));
  assert.deepEqual(chat, [{ base_url: "http://127.0.0.1:8000/v1", api_key: "none" }, { model: "m", messages, logprobs: true }]);
});
