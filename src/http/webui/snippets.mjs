// The request on the screen as something to paste. The key is never part of it.

/** Fields that the OpenAI SDK knows by name; the others go through `extra_body`. */
const SDK_FIELDS = new Set([
  "model", "prompt", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stop", "seed",
  "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "stream", "stream_options",
]);

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** A shell command. */
export function toCurl({ base, path, body, keyed }) {
  const json = JSON.stringify({ ...body, seed: undefined }, null, 2);
  const whole = body.seed === undefined ? json : json.replace(/\n}$/, `,\n  "seed": ${body.seed}\n}`);
  return [
    `curl -N ${base}${path}`,
    ...(keyed ? ['-H "Authorization: Bearer $OPENAI_API_KEY"'] : []),
    '-H "Content-Type: application/json"',
    `-d ${quoted(whole)}`,
  ].join(" \\\n  ");
}

/** A value as Python writes it; texts in JSON's form are texts in Python's. */
function literal(value, indent = "") {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  const inner = `${indent}    `;
  const lines = (open, items, close) => `${open}\n${items.map((i) => `${inner}${i},\n`).join("")}${indent}${close}`;
  if (Array.isArray(value)) {
    const items = value.map((v) => literal(v, inner));
    return value.some((v) => typeof v === "object") ? lines("[", items, "]") : `[${items.join(", ")}]`;
  }
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${literal(v, inner)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

/** A program for the OpenAI SDK. */
export function toPython({ base, path, body, keyed }) {
  const chat = path.includes("chat");
  const { seed, ...fields } = body;
  const named = Object.entries(fields).filter(([name]) => SDK_FIELDS.has(name));
  const extra = Object.fromEntries(Object.entries(fields).filter(([name]) => !SDK_FIELDS.has(name)));
  const args = named.map(([name, value]) => `    ${name}=${literal(value, "    ")},`);
  if (seed !== undefined) args.push(`    seed=${seed},`);
  if (Object.keys(extra).length > 0) args.push(`    extra_body=${literal(extra, "    ")},`);
  const piece = chat ? 'chunk.choices[0].delta.content or ""' : "chunk.choices[0].text";
  return [
    ...(keyed ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${base}v1`)}, api_key=${keyed ? 'os.environ["OPENAI_API_KEY"]' : '"none"'})`,
    `stream = client.${chat ? "chat.completions" : "completions"}.create(`,
    ...args,
    ")",
    "for chunk in stream:",
    "    if chunk.choices:",
    `        print(${piece}, end="", flush=True)`,
  ].join("\n");
}

