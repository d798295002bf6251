// One request on its way: its clock, its button, its errors. One at a time.
import { $, announce, el } from "./dom.mjs";
import { Failure, stream } from "./api.mjs";
import { markInvalid } from "./settings.mjs";

let abort = null;
let ended = Promise.resolve();

export const isRunning = () => abort !== null;

/** Ends what runs; resolves when it has ended. */
export function stop() {
  abort?.abort();
  return ended;
}

/** What the clock says of a request. */
class Clock {
  started = performance.now();
  first = null;
  last = null;
  chunks = 0;
  tokens = 0;
  usage = null;

  tick(parts) {
    const tokens = parts.reduce((sum, part) => sum + part.tokens.length, 0);
    if (tokens === 0 && parts.every((part) => part.text === "")) return;
    this.last = performance.now();
    this.first ??= this.last;
    this.chunks += parts.length;
    this.tokens += tokens;
  }

  /** Generated so far; without probabilities a chunk is about a token. */
  get generated() {
    return this.usage?.completion_tokens ?? (this.tokens || this.chunks);
  }

  get perSecond() {
    const seconds = (this.last - this.first) / 1000;
    // The first token came with the prompt; the rate is that of the others.
    return seconds > 0.02 ? (this.generated - 1) / seconds : null;
  }
}

/**
 * Sends a request and hands out what comes: `take(parts)` for each chunk, `draw()` once a frame.
 * `prepare()` makes `{ path, body, read }`; `read` turns a chunk into parts. Returns how it ended:
 * `done`, `stopped` or `failed`.
 */
export function run(job) {
  const before = stop();
  const controller = new AbortController();
  abort = controller;
  const outcome = before.then(() => drive(job, controller)).finally(() => {
    if (abort === controller) abort = null;
  });
  ended = outcome.then(() => {});
  return outcome;
}

async function drive({ prepare, take, draw }, controller) {
  showError(null);
  const clock = new Clock();
  let about = {};
  let outcome = "done";
  let frame = 0;
  const redraw = () => {
    frame = 0;
    following(() => { draw(); showClock(clock, about, "running"); });
  };
  setRunning(true);
  showClock(clock, about, "running");
  announce("Generating");
  try {
    const { path, body, read } = await prepare();
    const chunks = stream(path, { ...body, stream: true, stream_options: { include_usage: true } }, controller.signal);
    about = (await chunks.next()).value;
    for await (const chunk of chunks) {
      clock.usage = chunk.usage ?? clock.usage;
      const parts = read(chunk);
      clock.tick(parts);
      take(parts);
      frame ||= requestAnimationFrame(redraw);
    }
  } catch (error) {
    outcome = error.name === "AbortError" ? "stopped" : "failed";
    if (outcome === "failed") showError(error);
  }
  cancelAnimationFrame(frame);
  setRunning(false);
  following(() => { draw(); showClock(clock, about, outcome); });
  if (outcome !== "failed") announce(`${outcome === "done" ? "Finished" : "Stopped"}: ${clock.generated} tokens`);
  return outcome;
}

/** Draws, and keeps the end of the text in view for those who look at it. */
function following(draw) {
  const view = $("work");
  const isAtEnd = view.scrollHeight - view.scrollTop - view.clientHeight < 80;
  draw();
  if (isAtEnd) view.scrollTop = view.scrollHeight;
}

function setRunning(running) {
  document.body.classList.toggle("running", running);
  // The other button takes the focus, so that a second press means the opposite.
  const [shown, hidden] = running ? [$("stop-button"), $("run-button")] : [$("run-button"), $("stop-button")];
  const hadFocus = document.activeElement === hidden;
  shown.hidden = false;
  if (hadFocus) shown.focus();
  hidden.hidden = true;
}

function fact(name, value, unit = "") {
  return el("div", { className: "fact" }, el("dt", {}, name), el("dd", {}, value, el("small", {}, unit)));
}

function showClock(clock, about, state) {
  const facts = [];
  const waited = (clock.first ?? performance.now()) - clock.started;
  if (clock.first !== null) facts.push(fact("First token", waited < 10 ? waited.toFixed(1) : waited.toFixed(0), " ms"));
  if (clock.perSecond !== null) facts.push(fact("Speed", clock.perSecond.toFixed(1), " tok/s"));
  if (clock.usage) {
    const cached = clock.usage.prompt_tokens_details?.cached_tokens;
    facts.push(fact("Prompt", String(clock.usage.prompt_tokens), cached ? ` tokens, ${cached} cached` : " tokens"));
  }
  if (clock.generated > 0) facts.push(fact("Answer", String(clock.generated), clock.generated === 1 ? " token" : " tokens"));
  if (about.seed) {
    $("seed-note").hidden = false;
    $("last-seed").textContent = about.seed;
  }
  $("state").textContent = { running: clock.first === null ? "Waiting" : "Generating", done: "", stopped: "Stopped", failed: "Failed" }[state];
  $("facts").replaceChildren(...facts);
}

/** Shows an error until the next request, or nothing. */
export function showError(error) {
  const box = $("error");
  box.hidden = error === null;
  const hasControl = markInvalid(error?.param ?? null);
  if (error === null) return;
  const known = error instanceof Failure ? error : new Failure(`The page itself failed: ${error.message}`);
  const { status, type, code, param, requestId, retryAfterS } = known;
  const details = [status && `HTTP ${status}`, code ?? type, param && `parameter ${param}`, requestId && `request ${requestId}`];
  $("error-message").textContent = known.message;
  $("error-details").textContent = details.filter(Boolean).join(" · ");
  $("error-hint").textContent = status === 401
    ? "Check the API key above."
    : retryAfterS !== null ? `Try again in ${retryAfterS} s.` : hasControl ? "The setting is marked." : "";
  if (status === 401) document.dispatchEvent(new CustomEvent("key-refused"));
}
