// The chat side: a conversation, answered by the model's own template.
import { $, action, copy, el, fill, growing } from "./dom.mjs";
import { fromChat } from "./answer.mjs";
import { AnswerBox } from "./complete.mjs";
import { forChat, model } from "./settings.mjs";
import { run, showError, stop } from "./run.mjs";

const CHAT_COMPLETIONS = "v1/chat/completions";

/** `{ role: "user", content }` and `{ role: "assistant", box }` in turn; each with its `root` on the page. */
let turns = [];

const asMessage = ({ role, content, box }) => ({ role, content: box ? box.answer.text : content });

function messages(upTo = turns) {
  const system = $("system").value.trim();
  return [...(system === "" ? [] : [{ role: "system", content: system }]), ...upTo.map(asMessage)];
}

function chatRequest() {
  const draft = $("message").value;
  const asked = draft.trim() === "" ? messages() : [...messages(), { role: "user", content: draft }];
  return { path: CHAT_COMPLETIONS, body: { model: model(), messages: asked, ...forChat() } };
}

function showTurns() {
  $("turns").replaceChildren(...turns.map((turn) => turn.root));
  $("chat-examples").hidden = turns.length > 0;
  $("new-chat").disabled = turns.length === 0;
  turns.forEach(({ box, again }, i) => { if (box) again.hidden = i !== turns.length - 1; });
}

function userTurn(content) {
  const turn = { role: "user", content };
  const copyButton = action("copy", "Copy", () => copy(content, copyButton));
  turn.root = el("article", { className: "said", "aria-label": "You" },
    el("p", {}, content),
    el("div", { className: "tools" }, action("pencil", "Edit", () => edit(turn)), copyButton));
  return turn;
}

/** Back to before this message, which can be written anew. */
async function edit(turn) {
  await stop();
  turns = turns.slice(0, turns.indexOf(turn));
  showTurns();
  fill($("message"), turn.content);
  $("message").focus();
}

async function startChat() {
  const draft = $("message").value;
  const last = turns.at(-1);
  if (draft.trim() === "") {
    // An answer that failed before its first word left the question open.
    if (last?.role === "user") return askModel();
    return $("message").focus();
  }
  await stop();
  if (last?.role === "user") turns.pop();
  turns.push(userTurn(draft));
  fill($("message"), "");
  return askModel();
}

async function askAgain() {
  await stop();
  turns.pop();
  return askModel();
}

async function askModel() {
  let body;
  try {
    body = { model: model(), messages: messages(), ...forChat() };
  } catch (error) {
    showTurns();
    return showError(error);
  }
  const againButton = action("again", "Again", askAgain);
  const box = new AnswerBox("Answer", body.model, [againButton]);
  const turn = { role: "assistant", box, root: box.root, again: againButton };
  turns.push(turn);
  showTurns();
  $("work").scrollTop = $("work").scrollHeight;
  const outcome = await run({
    prepare: async () => ({ path: CHAT_COMPLETIONS, body: { ...body, return_token_ids: true }, read: fromChat }),
    take: (parts) => parts.forEach((part) => box.answer.add(part)),
    draw: () => box.draw(),
  });
  box.close(outcome);
  if (outcome === "failed" && box.answer.text === "") {
    turns = turns.filter((t) => t !== turn);
    showTurns();
  }
}

export const chat = { name: "chat", request: chatRequest, start: startChat, focus: () => $("message").focus() };

export function setUpChat() {
  growing($("message"));
  growing($("system"));
  $("message").addEventListener("keydown", (event) => {
    // While an input method composes, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    startChat();
  });
  $("new-chat").addEventListener("click", async () => {
    await stop();
    turns = [];
    showError(null);
    showTurns();
    $("message").focus();
  });
  for (const button of document.querySelectorAll("#chat-examples button")) {
    button.addEventListener("click", () => { fill($("message"), button.dataset.prompt); $("message").focus(); });
  }
  showTurns();
}
