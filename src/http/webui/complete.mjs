// The completions side: a prompt, and what the model puts behind it.
import { $, action, announce, copy, el, fill, growing } from "./dom.mjs";
import { tokenize } from "./api.mjs";
import { Answer, fromCompletion, isSpecial } from "./answer.mjs";
import { forCompletion, model } from "./settings.mjs";
import { TokenView } from "./tokens.mjs";
import { isRunning, run, showError, stop } from "./run.mjs";

const COMPLETIONS = "v1/completions";

const ENDS = {
  stop: "finished", length: "reached max tokens", stopped: "stopped", failed: "broken off", content_filter: "filtered",
};

/** One answer on the page, with what can be done to it. Both sides of the page use it. */
export class AnswerBox {
  answer = new Answer();
  #undo = [];

  /**
   * `title`: what it is called. `name`: the model that was asked. `buttons`: more of them.
   */
  constructor(title, name, buttons = []) {
    this.name = name;
    this.view = new TokenView(this.answer, title, (index, option) => this.#pick(index, option));
    this.note = el("span", { className: "note" });
    const copyButton = action("copy", "Copy", () => copy(this.answer.text, copyButton));
    this.goOnButton = action("forward", "Continue", () => this.#goOn());
    this.undoButton = action("undo", "Undo", () => this.#undoPick());
    this.tools = el("div", { className: "tools" }, this.undoButton, this.goOnButton, ...buttons, copyButton);
    this.root = el("article", { className: "answer", "aria-label": title },
      el("header", {}, el("h2", {}, title), this.note, this.tools),
      this.view.root);
    this.draw();
  }

  draw() {
    const { finish, text, promptIds } = this.answer;
    this.view.draw();
    this.goOnButton.hidden = promptIds === null;
    this.note.textContent = finish === null ? "" : text === "" && finish === "stop" ? "the model said nothing" : ENDS[finish] ?? finish;
    this.tools.hidden = finish === null;
    this.undoButton.hidden = this.#undo.length === 0;
    this.root.setAttribute("aria-busy", String(finish === null));
  }

  /** The stream ended this way. */
  close(outcome) {
    this.answer.close(outcome === "done" ? "stop" : outcome);
    this.draw();
  }

  async #pick(index, option) {
    // A pick in the middle of a stream ends the stream first.
    await stop();
    this.#undo.push(this.answer.snapshot());
    this.answer.replace(index, option);
    if (isSpecial(option.label)) return this.close("done");
    return this.#stream();
  }

  async #goOn() {
    this.#undo.push(this.answer.snapshot());
    await this.#stream();
  }

  #undoPick() {
    if (isRunning()) return;
    this.answer.restore(this.#undo.pop());
    this.draw();
    announce("Undone");
  }

  async #stream() {
    // What had the focus is gone while the text grows.
    this.view.root.focus();
    this.draw();
    const outcome = await run({
      prepare: () => this.#continuation(),
      take: (parts) => parts.forEach((part) => this.answer.add(part)),
      draw: () => this.draw(),
    });
    this.close(outcome);
  }

  /** The request that goes on behind this answer: by ids, so that no token is cut in another way than it was made. */
  async #continuation() {
    const { n, ...fields } = forCompletion();
    const { ids, rest } = this.answer.prefix();
    const behind = rest === "" ? [] : await tokenize(this.name, rest);
    this.answer.ids = [...ids, ...behind];
    this.answer.goOn();
    const prompt = [...this.answer.promptIds, ...this.answer.ids];
    return { path: COMPLETIONS, body: { model: this.name, prompt, return_token_ids: true, ...fields }, read: fromCompletion };
  }
}

let boxes = [];

function completionRequest() {
  return { path: COMPLETIONS, body: { model: model(), prompt: $("prompt").value, ...forCompletion() } };
}

async function startCompletion() {
  let asked;
  try {
    asked = completionRequest();
  } catch (error) {
    return showError(error);
  }
  const count = asked.body.n ?? 1;
  const { model: name, prompt } = asked.body;
  const toPrompt = (box) => {
    fill($("prompt"), prompt + box.answer.text);
    $("answers").replaceChildren();
    boxes = [];
    $("prompt").focus();
  };
  const makeBox = (_, i) => {
    const title = count > 1 ? `Completion ${i + 1} of ${count}` : "Completion";
    const box = new AnswerBox(title, name, [action("up", "Add to prompt", () => toPrompt(box))]);
    return box;
  };
  const fresh = Array.from({ length: count }, makeBox);
  const outcome = await run({
    prepare: async () => {
      boxes = fresh;
      $("answers").replaceChildren(...boxes.map((box) => box.root));
      $("examples").hidden = true;
      return { path: COMPLETIONS, body: { ...asked.body, return_token_ids: true }, read: fromCompletion };
    },
    take: (parts) => parts.forEach((part) => fresh[part.index]?.answer.add(part)),
    draw: () => fresh.forEach((box) => box.draw()),
  });
  fresh.forEach((box) => box.close(outcome));
  if (outcome === "failed") dropEmpty(fresh);
}

/** An error before the first token leaves no answer. */
function dropEmpty(fresh) {
  for (const box of fresh) if (box.answer.text === "" && box.answer.tokens.length === 0) box.root.remove();
}

export const complete = { name: "complete", request: completionRequest, start: startCompletion, focus: () => $("prompt").focus() };

export function setUpComplete() {
  const fit = growing($("prompt"));
  for (const button of document.querySelectorAll("#examples button")) {
    button.addEventListener("click", () => { fill($("prompt"), button.dataset.prompt); $("prompt").focus(); });
  }
  $("prompt").addEventListener("input", () => { $("examples").hidden = $("prompt").value !== "" || boxes.length > 0; });
  fit();
}
