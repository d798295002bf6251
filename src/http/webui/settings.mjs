// The panel of parameters: what it says, as fields of a request.
import { $ } from "./dom.mjs";
import { Failure } from "./api.mjs";

/** Parameters that are numbers, with what the API does without them; those are left out of requests. */
const NUMBERS = [
  ["temperature", null],
  ["top_p", 1],
  ["presence_penalty", 0],
  ["frequency_penalty", 0],
  ["repetition_penalty", 1],
];

/** Stop sequences, one a line, where `\n` stands for a line break and `\\` for a backslash. */
export function stopSequences(text) {
  const escapes = { n: "\n", t: "\t", r: "\r", "\\": "\\" };
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => line.replace(/\\([ntr\\])/g, (_, c) => escapes[c]));
}

function number(name) {
  const input = $(name);
  if (!input.checkValidity()) {
    throw new Failure(`${input.labels[0].textContent.trim()}: ${input.validationMessage}`, { param: name });
  }
  return input.value === "" ? null : input.valueAsNumber;
}

function seed() {
  const text = $("seed").value.trim();
  if (text === "") return {};
  const fits = /^-?\d{1,19}$/.test(text) && BigInt.asIntN(64, BigInt(text)) === BigInt(text);
  if (!fits) throw new Failure("Seed: a whole number of 64 bits, or nothing for one at random.", { param: "seed" });
  return { seed: text };
}

/** What both endpoints take. */
function common() {
  const fields = {};
  for (const [name, standard] of NUMBERS) {
    const value = number(name);
    if (value !== null && value !== standard) fields[name] = value;
  }
  const stop = stopSequences($("stop").value);
  if (stop.length > 0) fields.stop = stop;
  return { ...fields, ...seed() };
}

export const model = () => $("model").value;
export const wantsTokens = () => $("probabilities").checked;

/** How many are asked for at each token; operators may allow less than usual. */
const alternatives = () => Number(document.documentElement.dataset.alternatives);

/** Fields for `/v1/completions`. */
export function forCompletion() {
  const n = number("n") ?? 1;
  return {
    max_tokens: number("max_tokens") ?? 16,
    ...common(),
    ...(n > 1 ? { n } : {}),
    ...(wantsTokens() ? { logprobs: alternatives() } : {}),
  };
}

/** Fields for `/v1/chat/completions`. */
export function forChat() {
  const limit = number("max_tokens");
  return {
    ...(limit === null ? {} : { max_completion_tokens: limit }),
    ...common(),
    ...(wantsTokens() ? { logprobs: true, top_logprobs: alternatives() } : {}),
  };
}

/** Marks the control of a parameter that was refused, and tells whether there is one. */
export function markInvalid(param) {
  for (const marked of document.querySelectorAll("[aria-invalid]")) marked.removeAttribute("aria-invalid");
  // Of a path such as `stop[1]`, the field.
  const field = param?.split(/[.[]/)[0];
  const name = { max_completion_tokens: "max_tokens" }[field] ?? field;
  const control = name && document.querySelector(`#settings [name="${CSS.escape(name)}"]`);
  control?.setAttribute("aria-invalid", "true");
  return Boolean(control);
}

/** Each slider and its number say the same. The seed that was drawn can be used again. */
export function setUpSettings() {
  $("last-seed").addEventListener("click", () => { $("seed").value = $("last-seed").textContent; $("seed").focus(); });
  for (const slider of document.querySelectorAll("input[type=range]")) {
    const input = $(slider.dataset.for);
    const paint = () => {
      const span = slider.max - slider.min;
      slider.style.setProperty("--filled", `${(100 * (slider.value - slider.min)) / span}%`);
    };
    slider.addEventListener("input", () => { input.value = slider.value; paint(); });
    input.addEventListener("input", () => { slider.value = input.value === "" ? input.placeholder : input.value; paint(); });
    paint();
  }
}

/** Fills the list of models. Their first name is the model's own. */
export function showModels(models) {
  const before = model();
  $("model").replaceChildren(...models.map(({ id }) => new Option(id, id)));
  if (models.some(({ id }) => id === before)) $("model").value = before;
}
