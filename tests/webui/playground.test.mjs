// The playground as a reader meets it: streams, tokens, the keyboard, the key, the theme.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import test, { after, before } from "node:test";
import { close, finished, KEY, openBrowser, openPage, openWithKey, serve, textOf, tokens } from "./support.mjs";

// Its text has every difficulty that real ones have: parts of characters, line breaks, ties.
const SLOW = "fake:step_ms=25,end_every=0";
let browser, keyed, keyless;

before(async () => {
  [browser, keyed, keyless] = await Promise.all([
    openBrowser(),
    serve(SLOW, [], { MILLRACE_API_KEY: KEY }),
    serve("fake:end_every=0", ["--allow-unauthenticated"]),
  ]);
});
after(async () => {
  await browser?.close();
  await Promise.all([keyed?.end(), keyless?.end()]);
});

/** Runs a prompt to its end. */
async function complete(page, settings = {}) {
  for (const [name, value] of Object.entries({ max_tokens: "24", ...settings })) {
    // On a phone they stand in a sheet of their own.
    if (await page.isVisible(`#${name}`)) await page.fill(`#${name}`, value);
  }
  await page.fill("#prompt", "A mill by the river");
  await page.click("#run-button");
  await finished(page);
}

const bodyOf = (request) => request.postDataJSON();

/** Whole tokens of made-up text: unlike parts of characters and control tokens, they read the same wherever they stand. */
const wordsOf = (text) => text.match(/ w\d+/g) ?? [];

/** The text of a prompt that was sent as ids. */
async function decoded(url, tokens) {
  const body = JSON.stringify({ tokens });
  const answer = await fetch(`${url}/detokenize`, { method: "POST", headers: { "content-type": "application/json" }, body });
  return (await answer.json()).prompt;
}

test("an answer streams in, and the numbers are told", async () => {
  const page = await openWithKey(browser, keyed.url);
  await page.fill("#max_tokens", "60");
  await page.fill("#prompt", "A mill by the river");
  await page.click("#run-button");
  await page.waitForFunction(() => document.querySelectorAll(".token").length > 5);
  assert.ok(await page.isVisible("#stop-button"), "tokens show while it runs");
  assert.equal(await page.textContent("#state"), "Generating");
  await finished(page);
  assert.equal(await tokens(page), 60);
  const facts = await page.textContent("#facts");
  assert.match(facts, /First token\d+.* ms.*Speed\d+\.\d tok\/s.*Prompt\d+ tokens.*Answer60 tokens/);
  assert.match(await page.textContent(".note"), /max tokens/);
  assert.match(await page.textContent("#last-seed"), /^\d+$/);
  await close(page, keyed.url);
});

test("the seed that was drawn gives the same answer again", async () => {
  const page = await openPage(browser, keyless.url);
  await complete(page);
  const before = await textOf(page);
  await page.click("#last-seed");
  await complete(page);
  assert.equal(await textOf(page), before);
  await close(page, keyless.url);
});

test("stop ends the request at once, here and in the server", async () => {
  const page = await openWithKey(browser, keyed.url);
  const running = async () => {
    const metrics = await (await fetch(`${keyed.url}/metrics`)).text();
    return Number(metrics.match(/^vllm:num_requests_running\S* (\S+)$/m)[1]);
  };
  for (const stop of [() => page.click("#stop-button"), () => page.keyboard.press("Escape")]) {
    await page.fill("#max_tokens", "2000");
    await page.fill("#prompt", "A mill by the river");
    await page.click("#run-button");
    await page.waitForFunction(() => document.querySelectorAll(".token").length > 3);
    assert.equal(await running(), 1);
    await stop();
    await finished(page);
    assert.equal(await page.textContent("#state"), "Stopped");
    assert.match(await page.textContent(".note"), /stopped/);
    assert.ok(await tokens(page) < 1000);
    while (await running() > 0);
  }
  await close(page, keyed.url);
});

test("several completions stream side by side", async () => {
  const page = await openPage(browser, keyless.url);
  await complete(page, { n: "3", max_tokens: "12" });
  assert.equal(await page.locator(".answer").count(), 3);
  for (let i = 0; i < 3; i++) assert.equal(await page.locator(".tokens").nth(i).locator(".token").count(), 12);
  assert.match(await page.textContent("#facts"), /Answer36 tokens/);
  await close(page, keyless.url);
});

test("a token shows on hover what else it could have been, and a pick goes on from there", async () => {
  const page = await openPage(browser, keyless.url);
  // Letters and whole characters: the fake model's bytes need not be any.
  await complete(page, { seed: "1" });
  const before = await page.evaluate(() => [...document.querySelectorAll(".token")].map((t) => t.textContent));
  const at = before.findIndex((text, i) => i > 3 && /^[a-z]/i.test(text));
  await page.locator(".token").nth(at).hover();
  await page.waitForSelector("#token-card:popover-open");
  const options = page.locator("#token-card .option");
  assert.ok(await options.count() >= 5);
  const shares = await page.locator("#token-card .share").allInnerTexts();
  const numbers = shares.map((share) => Number.parseFloat(share.replace("< ", "")));
  assert.deepEqual(numbers, [...numbers].sort((a, b) => b - a), "most probable first");
  const choice = page.locator("#token-card .option:not(.own):not(:disabled):not(:has-text('<|'))").first();
  const label = await choice.locator("code").textContent();
  const [request] = await Promise.all([page.waitForRequest("**/v1/completions"), choice.click()]);
  await finished(page);
  const kept = before.slice(0, at).join("");
  const picked = await page.locator(".token.picked").textContent();
  assert.equal(picked.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥"), label);
  assert.equal(await decoded(keyless.url, bodyOf(request).prompt), `A mill by the river${kept}${picked}`);
  assert.ok((await textOf(page)).startsWith(kept + picked));
  assert.equal(await tokens(page), at + 1 + 24);
  await page.click("text=Undo");
  assert.equal(await textOf(page), before.join(""));
  await close(page, keyless.url);
});

test("an answer behind a chat template goes on by its ids", async () => {
  const page = await openPage(browser, keyless.url);
  await page.selectOption("#model", "text-davinci-003");
  await complete(page);
  const before = await textOf(page);
  const [request] = await Promise.all([page.waitForRequest("**/v1/completions"), page.click("text=Continue")]);
  await finished(page);
  const prompt = await decoded(keyless.url, bodyOf(request).prompt);
  const opening = "<|user|>A mill by the river<|assistant|>";
  assert.equal(prompt.slice(0, opening.length), opening);
  assert.deepEqual(wordsOf(prompt), wordsOf(before));
  assert.deepEqual(wordsOf(await textOf(page)).slice(0, wordsOf(before).length), wordsOf(before));
  assert.equal(await tokens(page), 48);
  await close(page, keyless.url);
});

test("a conversation goes on, is answered again, and from a token on", async () => {
  const page = await openPage(browser, keyless.url);
  await page.click("#tab-chat");
  await page.fill("#max_tokens", "12");
  await page.click("summary:has-text('System message')");
  await page.fill("#system", "Be brief.");
  const send = async (act) => {
    const [request] = await Promise.all([page.waitForRequest("**/v1/**/*completions"), act()]);
    await finished(page);
    return bodyOf(request);
  };
  const say = (text) => send(async () => {
    await page.fill("#message", text);
    await page.press("#message", "Enter");
  });
  const answers = () => page.locator("#turns .tokens").allTextContents();
  await say("One");
  const [one] = await answers();
  const second = await say("Two");
  assert.deepEqual(second.messages, [
    { role: "system", content: "Be brief." }, { role: "user", content: "One" },
    { role: "assistant", content: one }, { role: "user", content: "Two" },
  ]);
  const again = await send(() => page.click("button:has-text('Again'):visible"));
  assert.deepEqual(again.messages, second.messages);
  const [, two] = await answers();
  const last = page.locator("#turns .answer").last();
  assert.equal(await last.locator(".token").count(), 12);
  const more = await send(() => last.locator("text=Continue").click());
  const asked = await decoded(keyless.url, more.prompt);
  const soFar = asked.split("<|user|>Two<|assistant|>")[1];
  assert.deepEqual(wordsOf(soFar), wordsOf(two), JSON.stringify([asked, two]));
  assert.deepEqual(wordsOf((await answers())[1]).slice(0, wordsOf(two).length), wordsOf(two));
  await page.locator(".said").last().hover();
  await page.locator(".said").last().locator("text=Edit").click();
  assert.equal(await page.inputValue("#message"), "Two");
  assert.equal((await answers()).length, 1);
  await page.click("#new-chat");
  assert.equal((await answers()).length, 0);
  await close(page, keyless.url);
});

test("everything can be done by the keyboard alone", async () => {
  const page = await openPage(browser, keyed.url);
  const { keyboard } = page;
  const focus = () => page.evaluate(() => document.activeElement.id || document.activeElement.className);
  const tabTo = async (wanted) => {
    for (let i = 0; i < 60 && await focus() !== wanted; i++) await keyboard.press("Tab");
    assert.equal(await focus(), wanted);
  };
  assert.equal(await focus(), "key", "the first thing that a keyed server wants");
  await keyboard.type(KEY);
  await keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement.id === "prompt");
  await keyboard.type("A mill by the river");
  await tabTo("max_tokens");
  await keyboard.press("Control+a");
  await keyboard.type("20");
  await keyboard.press("Control+Enter");
  await page.waitForFunction(() => document.querySelectorAll(".token").length > 0);
  await finished(page);
  for (let i = 0; i < 60 && !(await focus()).startsWith("tokens"); i++) await keyboard.press("Shift+Tab");
  for (let i = 0; i < 4; i++) await keyboard.press("ArrowRight");
  await page.waitForSelector("#token-card:popover-open");
  const current = await page.locator(".token.current").getAttribute("data-index");
  assert.match(await page.textContent("#announcer"), /%$/, "the token is read out");
  await keyboard.press("Enter");
  await keyboard.press("Escape");
  assert.match(await focus(), /^tokens/, "Escape leads back");
  await keyboard.press("Enter");
  await keyboard.press("ArrowDown");
  await keyboard.press("Enter");
  await page.waitForSelector(".token.picked", { state: "attached" });
  await finished(page);
  assert.equal(await page.locator(".token.picked").getAttribute("data-index"), current);
  assert.equal(await tokens(page), Number(current) + 1 + 20);
  await keyboard.press("Escape");
  await keyboard.press("?");
  assert.ok(await page.isVisible("#help"));
  await keyboard.press("Escape");
  await tabTo("code-button");
  await keyboard.press("Enter");
  assert.ok(await page.isVisible("#code"));
  await keyboard.press("Escape");
  await tabTo("tab-complete");
  await keyboard.press("ArrowRight");
  assert.ok(await page.isVisible("#chat"));
  await close(page, keyed.url);
});

test("the key stays in memory", async () => {
  const page = await openWithKey(browser, keyed.url);
  await complete(page, { max_tokens: "3" });
  await page.click("#theme");
  await page.click("#code-button");
  await page.click("#code-python");
  const kept = await page.evaluate(async () => JSON.stringify([
    { ...localStorage }, { ...sessionStorage }, document.cookie, location.href, history.state,
    await indexedDB.databases(), await caches.keys(), document.documentElement.outerHTML,
  ]));
  assert.ok(!kept.includes(KEY));
  const storage = await page.context().storageState({ indexedDB: true });
  assert.ok(!JSON.stringify(storage).includes(KEY));
  assert.deepEqual(storage.cookies, []);
  for (const request of page.sent) {
    assert.ok(!request.url().includes(KEY) && !(request.postData() ?? "").includes(KEY));
    const headers = Object.entries(await request.allHeaders()).filter(([, value]) => value.includes(KEY));
    assert.deepEqual(headers, request.url() === `${keyed.url}/` ? [] : [["authorization", `Bearer ${KEY}`]]);
  }
  await page.reload();
  assert.equal(await page.inputValue("#key"), "");
  assert.ok(await page.isVisible("#gate"), "gone with the page");
  await close(page, keyed.url);
});

test("errors can be read, and lead to what is wrong", async () => {
  const page = await openPage(browser, keyed.url);
  await page.fill("#key", "sk-wrong");
  await page.click("#connect");
  await page.waitForSelector("#error:visible");
  assert.match(await page.textContent("#error"), /API key.*HTTP 401 · invalid_api_key · request \S+/s);
  assert.ok(await page.isVisible("#gate"));
  await page.fill("#key", KEY);
  await page.click("#connect");
  await page.waitForSelector("#error", { state: "hidden" });
  await complete(page, { top_p: "7" });
  assert.match(await page.textContent("#error"), /Top p/);
  assert.equal(await page.getAttribute("#top_p", "aria-invalid"), "true");
  await complete(page, { top_p: "1", max_tokens: "100000" });
  assert.match(await page.textContent("#error"), /maximum context length.*HTTP 400 · context_length_exceeded/s);
  await complete(page, { max_tokens: "5" });
  assert.ok(await page.isHidden("#error"));
  assert.equal(await page.locator("[aria-invalid]").count(), 0);
  // The browser says so itself when an answer is an error.
  page.faults = page.faults.filter((fault) => !/status of 40[01]/.test(fault));
  await close(page, keyed.url);
});

test("dark and light follow the system, and the switch is remembered", async () => {
  const ground = (page) => page.evaluate(() => {
    const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
    return (r + g + b) / 3 < 128 ? "dark" : "light";
  });
  for (const [colorScheme, other] of [["dark", "light"], ["light", "dark"]]) {
    const page = await openPage(browser, keyless.url, { colorScheme });
    assert.equal(await ground(page), colorScheme);
    await page.click("#theme");
    assert.equal(await ground(page), other);
    await page.reload();
    assert.equal(await ground(page), other);
    assert.deepEqual(await page.evaluate(() => ({ ...localStorage })), { theme: other });
    await close(page, keyless.url);
  }
});

test("it is accessible and fits, on a desk and on a phone, dark and light", async () => {
  const axe = createRequire(import.meta.url).resolve("axe-core");
  for (const viewport of [{ width: 1440, height: 900 }, { width: 390, height: 844 }]) {
    for (const colorScheme of ["light", "dark"]) {
      // The checker writes markup, which the page's policy forbids.
      const page = await openPage(browser, keyless.url, { viewport, colorScheme, bypassCSP: true, reducedMotion: "reduce" });
      await page.addScriptTag({ path: axe });
      const check = async (where) => {
        const { violations } = await page.evaluate(() => axe.run());
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html).join(" ")}`);
        assert.deepEqual(found, [], `${where} at ${viewport.width}, ${colorScheme}`);
        const width = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.equal(width, viewport.width, `${where}: nothing sticks out`);
      };
      await page.waitForFunction(() => document.querySelector("#model").options.length > 0);
      await check("empty");
      await complete(page);
      // Not a line feed or another one that has no width to click on.
      await page.locator(".token", { hasText: /\S/ }).first().click();
      await check("with a token's card");
      await page.keyboard.press("Escape");
      if (viewport.width < 500) await page.click("#settings-button");
      await check("parameters");
      await page.keyboard.press("Escape");
      await page.click("#code-button");
      await check("code");
      await page.keyboard.press("Escape");
      await page.click("#tab-chat");
      await check("chat");
      await close(page, keyless.url);
    }
  }
});

test("without the pages there is nothing at their address", async () => {
  const server = await serve("fake:", ["--allow-unauthenticated", "--no-webui"]);
  const answer = await fetch(`${server.url}/`);
  assert.equal(answer.status, 404);
  assert.deepEqual(Object.keys((await answer.json()).error), ["message", "type", "param", "code"]);
  await server.end();
});
