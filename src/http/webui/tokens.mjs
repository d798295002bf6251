// An answer on the page, token by token: what else each could have been, by pointer and by keys.
import { $, announce, el } from "./dom.mjs";
import { isPartial, isSpecial, ranked } from "./answer.mjs";

/** Upper bounds of the shades of doubt, least probable first. */
const SHADES = [0.03, 0.1, 0.25, 0.5];
const SHOW_AFTER_MS = 90;
const HIDE_AFTER_MS = 220;

const percent = (logprob) => {
  const p = Math.exp(logprob) * 100;
  return p >= 99.95 ? "100 %" : p < 0.05 ? "< 0.1 %" : `${p.toFixed(1)} %`;
};

/** A token with what is invisible in it made visible. */
function visible(label) {
  if (isPartial(label)) return `‹${label.slice("bytes:".length).replaceAll("\\x", " ").trim()}›`;
  return label.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

const spoken = (label) => (label.trim() === "" ? visible(label).replaceAll("␣", "space ").replaceAll("⏎", "line break ") : label.trim());

const shade = ({ logprob }) => {
  const at = SHADES.findIndex((bound) => Math.exp(logprob) < bound);
  return at < 0 ? "sure" : `doubt${at}`;
};

export class TokenView {
  #spans = [];
  #tail = new Text();
  #current = -1;

  /** `onPick(index, option)`: put that token there and go on. */
  constructor(answer, label, onPick) {
    this.answer = answer;
    this.onPick = onPick;
    this.root = el("div", { className: "tokens", tabIndex: 0, role: "group", "aria-label": label, "aria-describedby": "tokens-help" });
    this.root.append(this.#tail);
    this.root.addEventListener("pointerover", (event) => this.#hover(event));
    this.root.addEventListener("pointerout", () => card.hideSoon());
    this.root.addEventListener("click", (event) => this.#click(event));
    this.root.addEventListener("keydown", (event) => this.#key(event));
    this.root.addEventListener("blur", () => card.hideSoon());
  }

  /** Draws what came. */
  draw() {
    const { text, tokens, finish } = this.answer;
    for (const span of this.#spans.splice(tokens.length)) span.remove();
    if (this.#current >= tokens.length) this.#current = -1;
    let end = 0;
    tokens.forEach((token, index) => {
      end = token.end;
      const span = (this.#spans[index] ??= this.#append(index));
      if (span.token === token && token.end === span.end && token.start === span.start) return;
      Object.assign(span, { token, start: token.start, end: token.end });
      span.textContent = text.slice(token.start, token.end);
      const isEnd = token.start === token.end && index === tokens.length - 1 && isSpecial(token.label);
      span.className = `token ${shade(token)}${token.picked ? " picked" : ""}${isEnd ? " end" : ""}`;
    });
    const rest = text.slice(end);
    if (this.#tail.data !== rest) this.#tail.data = rest;
    this.root.classList.toggle("growing", finish === null);
  }

  #append(index) {
    const span = el("span", { className: "token" });
    span.dataset.index = index;
    this.#tail.before(span);
    return span;
  }

  /** Focus comes back here from the card. */
  focus() {
    this.root.focus();
    if (this.#current >= 0) this.#show(this.#current, true);
  }

  #at(event) {
    const span = event.target.closest?.(".token");
    return span ? Number(span.dataset.index) : -1;
  }

  #hover(event) {
    const index = this.#at(event);
    if (index >= 0 && event.pointerType === "mouse") card.showSoon(() => this.#show(index, false));
  }

  #click(event) {
    const index = this.#at(event);
    // Whoever selects text wants no card in the way.
    if (index < 0 || !getSelection().isCollapsed) return;
    this.#show(index, true);
  }

  #key(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1 };
    const last = this.#spans.length - 1;
    if (event.key in steps && this.#current < 0) this.#move(event.key === "ArrowRight" ? 0 : last, steps[event.key]);
    else if (event.key in steps) this.#move(this.#current + steps[event.key], steps[event.key]);
    else if (event.key === "Home") this.#move(0, 1);
    else if (event.key === "End") this.#move(last, -1);
    else if (["Enter", " ", "ArrowDown"].includes(event.key) && this.#current >= 0) card.focusFirst();
    else return;
    event.preventDefault();
  }

  /** To the token at `index`, or the next one in that direction that can be seen. */
  #move(index, step) {
    while (this.#spans[index] && this.#spans[index].offsetWidth === 0) index += step;
    if (!this.#spans[index]) return;
    this.#show(index, true);
    const { label, logprob } = this.answer.tokens[index];
    announce(`${spoken(label)}, ${percent(logprob)}`);
  }

  #show(index, isPinned) {
    const span = this.#spans[index];
    if (!span) return;
    this.#spans[this.#current]?.classList.remove("current");
    this.#current = index;
    span.classList.add("current");
    card.show(this, span, this.answer.tokens[index], index, isPinned);
  }

  leave() {
    this.#spans[this.#current]?.classList.remove("current");
  }
}

/** The one card with alternatives, beside the token that it is about. */
class Card {
  #view = null;
  #timer = 0;
  #isPinned = false;

  setUp() {
    this.node = $("token-card");
    this.node.addEventListener("pointerenter", () => clearTimeout(this.#timer));
    this.node.addEventListener("pointerleave", () => this.hideSoon());
    this.node.addEventListener("focusout", () => this.hideSoon());
    this.node.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("pointerdown", (event) => {
      if (!this.node.contains(event.target) && !event.target.closest?.(".token")) this.hide();
    });
    document.addEventListener("scroll", () => this.hide(), { capture: true, passive: true });
  }

  get isOpen() {
    return this.#view !== null;
  }

  showSoon(show) {
    if (this.#isPinned) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(show, SHOW_AFTER_MS);
  }

  /** Unless the pointer or the focus comes in meanwhile. */
  hideSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const { activeElement } = document;
      const stays = this.node.contains(activeElement) || (this.#isPinned && activeElement === this.#view?.root);
      if (!stays && !this.#isPinned) this.hide();
      else if (!stays && !this.node.matches(":hover")) this.hide();
    }, HIDE_AFTER_MS);
  }

  hide() {
    clearTimeout(this.#timer);
    this.#view?.leave();
    this.#view = null;
    this.#isPinned = false;
    if (this.node.matches(":popover-open")) this.node.hidePopover();
  }

  show(view, span, token, index, isPinned) {
    clearTimeout(this.#timer);
    if (this.#view !== view) this.#view?.leave();
    this.#view = view;
    this.#isPinned = isPinned;
    const options = ranked(token.top);
    const rank = options.findIndex(({ label }) => label === token.label) + 1;
    // One that is not among those asked for comes on top of them: its rank is not known.
    const isRanked = rank > 0 && rank <= Number(document.documentElement.dataset.alternatives);
    this.node.replaceChildren(
      el("div", { className: "card-head" },
        el("code", {}, visible(token.label)),
        el("span", {}, token.picked ? "your choice" : isRanked ? `choice ${rank}` : ""),
        el("strong", {}, percent(token.logprob))),
      el("div", { className: "options" }, ...options.map((option) => this.#option(view, token, index, option))),
      el("p", {}, options.length > 0 ? "Pick one to continue from there." : "No alternatives were asked for."),
    );
    if (!this.node.matches(":popover-open")) this.node.showPopover();
    this.#place(span);
  }

  #option(view, token, index, option) {
    const own = option.label === token.label;
    const button = el("button", {
      type: "button", className: own ? "option own" : "option",
      disabled: isPartial(option.label),
      title: isPartial(option.label) ? "Only a part of a character: it cannot be sent as text" : "",
      onclick: () => { this.hide(); view.onPick(index, option); },
    }, el("code", {}, visible(option.label)), el("span", { className: "meter" }),
      el("span", { className: "share" }, percent(option.logprob), ...(own ? [el("span", { className: "unseen" }, ", the one that was drawn")] : [])));
    button.style.setProperty("--share", `${Math.exp(option.logprob) * 100}%`);
    return button;
  }

  /** Below the token if there is room, else above. */
  #place(span) {
    const token = span.getClientRects()[0] ?? span.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.node;
    const left = Math.min(Math.max(12, token.left - 14), innerWidth - width - 12);
    const below = token.bottom + 8;
    const top = below + height < innerHeight - 8 ? below : Math.max(8, token.top - height - 8);
    Object.assign(this.node.style, { left: `${left}px`, top: `${top}px` });
  }

  focusFirst() {
    this.node.querySelector("button:not(:disabled)")?.focus();
  }

  #key(event) {
    const buttons = [...this.node.querySelectorAll("button:not(:disabled)")];
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to !== undefined) {
      buttons[(to + buttons.length) % buttons.length]?.focus();
    } else if (event.key === "Escape" || event.key === "ArrowLeft" || event.key === "ArrowRight") {
      this.#view?.focus();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

export const card = new Card();
