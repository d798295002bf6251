// The API as this page uses it. The key lives in this module's memory and goes into one header.
import { events } from "./sse.mjs";

let apiKey = "";

export const useKey = (key) => { apiKey = key; };
export const hasKey = () => apiKey !== "";

/** Whether `key` can be sent in a header at all. */
export const isSendable = (key) => /^[\x21-\x7e]*$/.test(key);

/** An error of the API, of its form, or of the way there. */
export class Failure extends Error {
  constructor(message, about = {}) {
    super(message);
    this.name = "Failure";
    const { status = null, type = null, code = null, param = null, requestId = null, retryAfterS = null } = about;
    Object.assign(this, { status, type, code, param, requestId, retryAfterS });
  }

  static async of(response) {
    const about = { status: response.status, requestId: response.headers.get("x-request-id") };
    const seconds = Number.parseInt(response.headers.get("retry-after"), 10);
    if (Number.isFinite(seconds)) about.retryAfterS = seconds;
    try {
      const { error } = await response.json();
      return new Failure(error.message, { ...about, type: error.type, code: error.code, param: error.param });
    } catch {
      // A proxy between the page and the server answers in its own words.
      return new Failure(`The server answered ${response.status} ${response.statusText}`.trim() + ".", about);
    }
  }
}

/** JSON of a request. Seeds have 64 bits, more than a number here holds, so `seed` may be a text of digits. */
export function encode({ seed, ...fields }) {
  const json = JSON.stringify(fields);
  return seed === undefined ? json : `${json.slice(0, -1)},"seed":${seed}}`;
}

async function send(path, body, signal) {
  const headers = {};
  if (hasKey()) headers.Authorization = `Bearer ${apiKey}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    // Relative, so that the page works behind a proxy that puts the server under a path.
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers, signal, body: body === undefined ? undefined : encode(body), cache: "no-store", redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await Failure.of(response);
  return response;
}

/** Names that the server's model answers to, the first one first. */
export async function listModels() {
  return (await (await send("v1/models")).json()).data;
}

/** Token ids of a text that goes on behind others. */
export async function tokenize(model, text) {
  const body = { model, prompt: text, add_special_tokens: false };
  return (await (await send("tokenize", body)).json()).tokens;
}

/** Streams an answer: first `{ seed, requestId }`, then the chunks as they came. */
export async function* stream(path, body, signal) {
  const response = await send(path, body, signal);
  const requestId = response.headers.get("x-request-id");
  yield { seed: response.headers.get("x-millrace-seed"), requestId };
  try {
    for await (const event of events(response.body)) {
      if (event.error) throw new Failure(event.error.message, { ...event.error, requestId });
      yield event;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Failure) throw error;
    throw new Failure(error.message === "network error" ? "The connection was lost." : error.message, { requestId });
  }
}
