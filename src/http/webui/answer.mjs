// One answer as it grows: its text, its tokens, and which part of the text is whose.

/** Ids come with `return_token_ids`: of the prompt once, of what was generated with each chunk. */
const idsOf = ({ token_ids: ids = [], prompt_token_ids: promptIds = null }) => ({ ids: ids ?? [], promptIds });

/** What a chunk of `/v1/completions` adds: `[{ index, text, tokens, finish, ids, promptIds }]`. */
export function fromCompletion(chunk) {
  return (chunk.choices ?? []).map(({ index, text, logprobs, finish_reason: finish, ...more }) => ({
    index, text, finish, ...idsOf(more),
    tokens: (logprobs?.tokens ?? []).map((label, i) => ({
      label,
      logprob: logprobs.token_logprobs[i],
      top: Object.entries(logprobs.top_logprobs[i] ?? {}).map(([label, logprob]) => ({ label, logprob })),
      offset: logprobs.text_offset[i],
    })),
  }));
}

/** What a chunk of `/v1/chat/completions` adds, in the same form. */
export function fromChat(chunk) {
  const option = ({ token, logprob }) => ({ label: token, logprob });
  return (chunk.choices ?? []).map(({ index, delta, logprobs, finish_reason: finish, ...more }) => ({
    index, finish, ...idsOf(more),
    text: delta?.content ?? "",
    tokens: (logprobs?.content ?? []).map((token) => ({
      ...option(token), bytes: token.bytes, top: (token.top_logprobs ?? []).map(option),
    })),
  }));
}

/** Most probable first. */
export const ranked = (top) => [...top].sort((a, b) => b.logprob - a.logprob);

/** A token that ends or frames texts and has no text of its own. */
export const isSpecial = (label) => /^<(\|[^<>]*\||\/?s|eos|bos|pad|end_of_turn|start_of_turn)>$/.test(label);

/** A token that is only a part of a character. */
export const isPartial = (label) => /^bytes:(\\x[0-9a-f]{2})+$/i.test(label);

function bytesOf({ label, bytes }) {
  if (Array.isArray(bytes)) return bytes;
  if (isPartial(label)) return label.match(/[0-9a-f]{2}/gi).map((hex) => Number.parseInt(hex, 16));
  return [...new TextEncoder().encode(label)];
}

const utf8 = () => new TextDecoder("utf-8", { ignoreBOM: true });

export class Answer {
  text = "";
  /** `{ label, logprob, top, start, end, at }`: where it stands in `text`, and in `ids`. Empty without probabilities. */
  tokens = [];
  /** Of the prompt as the model read it, and of what was generated; of the end of the text too. */
  promptIds = null;
  ids = [];
  finish = null;
  /** Tokens before this one have their final place. */
  settled = 0;
  #end = 0;
  #scalars = 0;
  #origin = 0;
  /** As the server decodes: what begins a character waits for the rest of it, and what cannot be one becomes U+FFFD. */
  #decoder = utf8();

  /** What a chunk adds. A text may come later than its tokens, while it might begin a stop sequence. */
  add({ text, tokens, finish, ids, promptIds }) {
    // A stream that goes on behind an answer has all before it as its prompt; the first one counts.
    this.promptIds ??= promptIds;
    this.text += text;
    tokens.forEach((token, i) => {
      const own = token.offset === undefined ? this.#decoder.decode(new Uint8Array(bytesOf(token)), { stream: true }) : undefined;
      this.tokens.push({ ...token, own, at: this.ids.length + i });
    });
    this.ids.push(...ids);
    this.finish = finish ?? this.finish;
    this.#settle();
  }

  /** The stream is over, whatever its reason. */
  close(reason) {
    this.finish ??= reason;
    this.#settle();
  }

  /** Begins another stream behind the text that there is: its offsets count from here. */
  goOn() {
    this.close("cut");
    this.finish = null;
    // Tokens without a text ended the last one.
    while (this.tokens.length > 0 && this.tokens.at(-1).start === this.tokens.at(-1).end) this.tokens.pop();
    this.settled = this.tokens.length;
    this.#origin = this.#scalars = [...this.text].length;
    this.#end = this.text.length;
    this.#decoder = utf8();
  }

  /** Drops token `at` and all behind it, and puts `option` there instead. */
  replace(at, option) {
    const { start, top, at: idsBefore } = this.tokens[at];
    const label = isSpecial(option.label) ? "" : option.label;
    this.text = this.text.slice(0, start) + label;
    this.tokens.length = at;
    this.ids.length = idsBefore;
    this.tokens.push({ ...option, top, picked: true, start, end: this.text.length, at: idsBefore });
    this.settled = this.tokens.length;
    this.goOn();
  }

  /**
   * What another stream would go on from: ids, and a text behind them that has none yet, because it was picked
   * or is what a stop sequence left of a token.
   */
  prefix() {
    const { ids, text } = this;
    if (this.tokens.length === 0) {
      // Without labels all that is known of an end is that it says nothing.
      return { ids: this.finish === "stop" ? ids.slice(0, -1) : ids, rest: "" };
    }
    // What was cut off by the bound on tokens goes on behind all of them, parts of characters too.
    if (this.finish === "length") return { ids, rest: "" };
    const last = this.tokens.findLast(({ start, end }) => start < end);
    if (!last) return { ids: [], rest: "" };
    const isWhole = !last.picked && (isPartial(last.label) || text.slice(last.start, last.end).length >= last.label.trimStart().length);
    const next = this.tokens[this.tokens.indexOf(last) + 1];
    return isWhole ? { ids: ids.slice(0, next?.at), rest: "" } : { ids: ids.slice(0, last.at), rest: text.slice(last.start) };
  }

  snapshot() {
    return { text: this.text, tokens: [...this.tokens], ids: [...this.ids], finish: this.finish };
  }

  restore({ text, tokens, ids, finish }) {
    Object.assign(this, { text, tokens: [...tokens], ids: [...ids], settled: tokens.length });
    this.goOn();
    this.finish = finish;
  }

  #settle() {
    for (; this.settled < this.tokens.length; this.settled++) {
      const token = this.tokens[this.settled];
      const end = token.offset === undefined ? this.#endByText(token) : this.#endByOffset(this.settled);
      if (end === null) break;
      token.start = this.#end;
      token.end = this.#end = end;
    }
    // No text is without a token, wherever it came from.
    const last = this.tokens.at(-1);
    const isOver = this.finish !== null && this.settled === this.tokens.length;
    if (last && isOver && this.#end < this.text.length) last.end = this.#end = this.text.length;
    // Of the others the first shows all text that has come since.
    let start = this.#end;
    for (const token of this.tokens.slice(this.settled)) {
      token.start = start;
      token.end = start = this.text.length;
    }
  }

  /** A token ends where the next one begins. Null: not known yet. */
  #endByOffset(index) {
    const next = this.tokens[index + 1];
    if (!next) return this.finish === null ? null : this.text.length;
    let end = this.#end;
    let scalars = this.#scalars;
    for (; scalars < next.offset + this.#origin; scalars++) {
      if (end >= this.text.length) {
        if (this.finish === null) return null;
        break;
      }
      end += this.text.codePointAt(end) > 0xffff ? 2 : 1;
    }
    this.#scalars = scalars;
    return end;
  }

  /** Chat has no offsets: the token's own text is looked for. Null: not known yet. */
  #endByText({ own }) {
    const rest = this.text.slice(this.#end, this.#end + own.length);
    // Held back while it might begin a stop sequence, or cut off by one, or a token without a text.
    const isCut = rest !== own && own.startsWith(rest);
    if (isCut && this.finish === null) return null;
    if (isCut || rest === own) return this.#end + rest.length;
    // Some tokenizers drop the space before the first word.
    const bare = own.trimStart();
    return this.#end + (this.settled === 0 && rest.startsWith(bare) ? bare.length : 0);
  }
}
