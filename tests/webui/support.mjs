// Servers to look at, and a browser that notices everything that is wrong with a page.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

export const KEY = "sk-webui-canary-7Qk2";
const { CHROMIUM, MILLRACE_BIN } = process.env;
const START_TIMEOUT_MS = 60_000;

/** Serves `model` on a free port; `{ url, end() }` once it is ready. */
export async function serve(model, options, env = {}) {
  const args = ["serve", model, "--port", "0", ...options];
  const child = spawn(MILLRACE_BIN, args, { env: { PATH: process.env.PATH, ...env }, stdio: ["ignore", "ignore", "pipe"] });
  const log = [];
  let url;
  const ready = new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`the server did not start:\n${log.join("\n")}`)), START_TIMEOUT_MS);
    createInterface(child.stderr).on("line", (line) => {
      log.push(line);
      url ??= line.match(/http:\/\/127\.0\.0\.1:[1-9]\d*/)?.[0];
      if (!line.includes("ready to serve")) return;
      clearTimeout(late);
      resolve();
    });
    child.on("exit", (code) => { clearTimeout(late); reject(new Error(`the server ended with ${code}:\n${log.join("\n")}`)); });
  });
  ready.catch(() => child.kill("SIGKILL"));
  await ready;
  const end = async () => {
    const gone = once(child, "exit");
    child.kill("SIGTERM");
    const [code] = await gone;
    assert.equal(code, 0, log.join("\n"));
    assert.ok(!log.some((line) => line.includes(KEY)), "the log shows the key");
  };
  return { url, end };
}

export const openBrowser = () =>
  // Containers seldom let Chromium make its sandbox, and it only sees our own page.
  chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage"] });

/** A page in a context of its own. What is wrong with it is in `page.faults`, where it sent requests in `page.sent`. */
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
  });
  const page = await context.newPage();
  page.faults = [];
  page.sent = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) page.faults.push(message.text()); });
  page.on("pageerror", (error) => page.faults.push(error.message));
  page.on("request", (request) => page.sent.push(request));
  const response = await page.goto(url);
  assert.equal(response.status(), 200);
  return page;
}

/** With the key typed in, and the models listed. */
export async function openWithKey(browser, url, options = {}) {
  const page = await openPage(browser, url, options);
  await page.fill("#key", KEY);
  await page.press("#key", "Enter");
  await page.waitForFunction(() => document.querySelector("#model").options.length > 0);
  return page;
}

/** Nothing was wrong, and nothing went elsewhere. */
export async function close(page, url) {
  assert.deepEqual(page.faults, []);
  for (const request of page.sent) assert.ok(request.url().startsWith(`${url}/`) || request.url().startsWith("data:"), request.url());
  await page.context().close();
}

/** Until nothing runs. */
export const finished = (page) => page.waitForSelector("#run-button:visible");

export const tokens = (page) => page.locator(".token").count();

export const textOf = (page) => page.locator(".tokens").first().textContent();
