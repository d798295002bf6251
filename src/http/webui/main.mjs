// Puts the page together: the two sides, the key, the theme, the dialogs and the keys of the keyboard.
import { $, announce, copy } from "./dom.mjs";
import { Failure, hasKey, isSendable, listModels, useKey } from "./api.mjs";
import { setUpSettings, showModels } from "./settings.mjs";
import { toCurl, toPython } from "./snippets.mjs";
import { card } from "./tokens.mjs";
import { isRunning, showError, stop } from "./run.mjs";
import { complete, setUpComplete } from "./complete.mjs";
import { chat, setUpChat } from "./chat.mjs";

const IS_KEYED = document.documentElement.dataset.keyed === "true";
const SIDES = [complete, chat];
let side = complete;

// Sides: two tabs.

function choose(chosen, moveFocus) {
  side = chosen;
  for (const { name } of SIDES) {
    const isChosen = name === chosen.name;
    const tab = $(`tab-${name}`);
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    $(name).hidden = !isChosen;
    for (const node of document.querySelectorAll(`[data-only="${name}"]`)) node.hidden = !isChosen;
  }
  $("run-label").textContent = chosen === chat ? "Send" : "Run";
  $("run-button").querySelector(".ctrl").hidden = chosen === chat;
  if (moveFocus) $(`tab-${chosen.name}`).focus();
  card.hide();
}

function setUpTabs() {
  for (const each of SIDES) $(`tab-${each.name}`).addEventListener("click", () => choose(each, false));
  $("tabs").addEventListener("keydown", ({ key }) => {
    if (key === "ArrowLeft" || key === "ArrowRight") choose(side === chat ? complete : chat, true);
  });
}

// The key: typed in, kept in memory, gone with the tab.

function showGate(isShown) {
  $("gate").hidden = !isShown;
  $("key-button").setAttribute("aria-expanded", String(isShown));
  if (isShown) $("key").focus();
}

async function connect() {
  const typed = $("key").value.trim();
  if (!isSendable(typed)) return showError(new Failure("An API key has only letters, digits and signs of ASCII."));
  useKey(typed);
  $("key-button").classList.toggle("missing", IS_KEYED && !hasKey());
  if (await loadModels()) {
    showGate(false);
    side.focus();
  }
  return undefined;
}

function setUpKey() {
  $("key-button").hidden = !IS_KEYED;
  $("key-button").classList.toggle("missing", IS_KEYED);
  $("key-button").addEventListener("click", () => showGate($("gate").hidden));
  $("connect").addEventListener("click", connect);
  $("key").addEventListener("keydown", ({ key }) => { if (key === "Enter") connect(); });
  $("show-key").addEventListener("click", () => {
    const isShown = $("key").type === "password";
    $("key").type = isShown ? "text" : "password";
    $("show-key").setAttribute("aria-pressed", String(isShown));
    $("show-key").textContent = isShown ? "Hide" : "Show";
  });
  document.addEventListener("key-refused", () => { if (IS_KEYED) showGate(true); });
}

async function loadModels() {
  try {
    const models = await listModels();
    showModels(models);
    const context = models[0]?.max_model_len;
    const describe = () => {
      const chosen = models.find(({ id }) => id === $("model").value);
      const format = chosen?.prompt_format === "instruct" ? "Prompts become a turn of the model’s chat template. " : "";
      $("model-note").textContent = `${format}Context of ${context?.toLocaleString("en")} tokens.`;
    };
    $("model").onchange = describe;
    describe();
    showError(null);
    return true;
  } catch (error) {
    showError(error);
    if (error.code === "model_loading") setTimeout(loadModels, 1000 * Math.max(1, error.retryAfterS ?? 1));
    return false;
  }
}

// The theme: the system's, or the other one. The only thing that is kept.

function setUpTheme() {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const show = () => $("theme").setAttribute("aria-pressed", String(isDark()));
  const kept = (act) => {
    try {
      return act(localStorage);
    } catch {
      // Storage may be forbidden; then the choice lasts as long as the page.
      return null;
    }
  };
  const before = kept((storage) => storage.getItem("theme"));
  if (before === "dark" || before === "light") root.dataset.theme = before;
  $("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept((storage) => storage.setItem("theme", root.dataset.theme));
    show();
  });
  dark.addEventListener("change", show);
  show();
}

// The request as code.

function setUpCode() {
  const forms = { curl: toCurl, python: toPython };
  let form = "curl";
  const show = () => {
    for (const name of Object.keys(forms)) $(`code-${name}`).setAttribute("aria-pressed", String(name === form));
    const { path, body } = side.request();
    const base = new URL(".", location.href).href;
    $("code-text").textContent = forms[form]({ base, path, body: { ...body, stream: true }, keyed: IS_KEYED });
  };
  for (const name of Object.keys(forms)) $(`code-${name}`).addEventListener("click", () => { form = name; show(); });
  $("code-button").addEventListener("click", () => {
    try {
      show();
      $("code").showModal();
    } catch (error) {
      showError(error);
    }
  });
  $("code-copy").addEventListener("click", () => copy($("code-text").textContent, $("code-copy")));
}

// The keyboard.

const isTyping = ({ target }) => target.matches?.("input:not([type=range], [type=checkbox]), textarea, select");

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    side.start();
  } else if (event.key === "Escape") {
    if (card.isOpen) card.hide();
    else if (isRunning()) stop();
  } else if (event.key === "?" && !isTyping(event)) {
    $("help").showModal();
  }
}

function setUpDialogs() {
  $("help-button").addEventListener("click", () => $("help").showModal());
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    // A click on the backdrop is a click on the dialog itself, and on nothing in it.
    dialog.addEventListener("click", ({ target }) => { if (target === dialog) dialog.close(); });
  }
  const isMac = /Mac|iPhone|iPad/.test(navigator.platform);
  for (const key of document.querySelectorAll("kbd.ctrl")) key.textContent = isMac ? "⌘" : "Ctrl";
}

function setUp() {
  setUpTheme();
  setUpTabs();
  setUpSettings();
  setUpComplete();
  setUpChat();
  setUpCode();
  setUpDialogs();
  setUpKey();
  card.setUp();
  choose(complete, false);
  $("run-button").addEventListener("click", () => side.start());
  $("stop-button").addEventListener("click", stop);
  $("error-close").addEventListener("click", () => showError(null));
  $("shading").addEventListener("change", ({ target }) => document.body.classList.toggle("shaded", target.checked));
  document.addEventListener("keydown", onKey);
  if (IS_KEYED) showGate(true);
  else loadModels().then(() => announce("Ready"));
}

setUp();
