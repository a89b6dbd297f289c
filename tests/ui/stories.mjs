// The product's promise, as a person lives it: sign in, click the webhook icon, copy the endpoint,
// make a token, ring, and watch the agent answer without touching the page. Beside it: what a page
// must never do. Every wait is for a state, with a bound.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { AxeBuilder } from "@axe-core/playwright";
import { chromium } from "playwright-core";

const PATIENCE_MS = 20_000;
const HOSTILE = "<b>bell</b> <script>window.rung = 1</script> \u202e";

const directory = await mkdtemp(path.join(tmpdir(), "bellpull-ui-"));
const server = await start();
const browser = await chromium.launch({
  executablePath: process.env.BELLPULL_TEST_CHROMIUM,
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});
let passed = 0;
try {
  await story("a wrong key is refused, and no page is shown without one", wrongKey);
  await story("from the webhook icon to a live transcript", promise);
  await story("a stream that was cut resumes without gap or repeat", resumes);
  await story("the cookie alone never authorises the API, and forms need their token", cookie);
  await story("a key that may only read sees no form", readOnly);
  await story("content is there without JavaScript", withoutScript);
  for (const scheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      await story(`every page is accessible, ${scheme}, ${width} px`, () => accessible(scheme, width));
    }
  }
  console.log(`${passed} passed, 0 failed`);
} finally {
  await browser.close();
  server.process.kill("SIGTERM");
  await new Promise((resolve) => server.process.once("exit", resolve));
  await rm(directory, { recursive: true });
}

async function story(name, tell) {
  try {
    await tell();
  } catch (error) {
    console.error(`FAILED: ${name}\n${server.log()}`);
    throw error;
  }
  passed += 1;
  console.log(`ok: ${name}`);
}

/** A page that fails its story on any console error, page error or violated policy. */
async function open(options = {}) {
  const context = await browser.newContext({ permissions: ["clipboard-read", "clipboard-write"], ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  const close = async () => {
    assert.deepEqual(complaints, [], "the browser complained");
    await context.close();
  };
  return { page, context, close, complaints };
}

async function signIn(page, key = server.key) {
  await page.goto(`${server.url}/`);
  await page.getByLabel("API key").fill(key);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(/\/agents$/);
}

async function wrongKey() {
  const { page, context } = await open();
  await page.goto(`${server.url}/sessions`);
  await page.waitForURL(/sign-in/);
  await page.getByLabel("API key").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  await context.close();
}

async function promise() {
  const { page, close } = await open();
  await signIn(page);
  await page.getByRole("button", { name: /Webhook of default/ }).or(page.getByRole("link", { name: /Webhook of default/ })).first().click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("None yet, so nobody can ring this bell").waitFor();
  await dialog.getByRole("button", { name: "Copy the endpoint" }).click();
  await page.waitForFunction(() => navigator.clipboard.readText().then((text) => text.endsWith("/webhook")));
  const endpoint = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal((await ring(endpoint, "no token", {})).status, 401);
  await dialog.getByRole("button", { name: "Generate a token" }).click();
  const token = await dialog.locator("#made-token").textContent();
  const { status, answer } = await ring(endpoint, token, { type: "ticket.created", subject: HOSTILE });
  assert.equal(status, 202);
  // The delivery appears in the open dialog by itself.
  await dialog.locator(`[id="${answer.delivery_id}"]`).waitFor();

  await page.goto(`${server.url}/sessions/${answer.session_id}`);
  await page.getByText("Rehearsal: no AI was involved").first().waitFor();
  assert.equal(await page.evaluate(() => window.rung), undefined, "a payload ran as a script");
  // A second event for the open page: it comes without a reload.
  await page.evaluate(() => { window.kept = true; });
  await post(`/v1/sessions/${answer.session_id}/events`, {
    events: [{ type: "user.message", content: [{ type: "text", text: "And now?" }] }],
  });
  await page.locator("#log").getByText("> And now?").or(page.locator("#log").getByText("And now?")).first().waitFor();
  await page.waitForFunction(() => document.querySelectorAll("#log")[0].textContent.split("no AI was involved").length === 3);
  await page.locator("#head[data-status=idle]").waitFor();
  assert.equal(await page.evaluate(() => window.kept), true, "the page was loaded again");
  await close();
}

async function resumes() {
  const { page, context } = await open();
  await signIn(page);
  const agent = (await get("/v1/agents")).data.find((it) => it.name === "default");
  const environment = (await get("/v1/environments")).data[0];
  const session = await post("/v1/sessions", { agent: agent.id, environment_id: environment.id });
  const say = (text) => post(`/v1/sessions/${session.id}/events`, {
    events: [{ type: "user.message", content: [{ type: "text", text }] }],
  });
  await say("first");
  await page.goto(`${server.url}/sessions/${session.id}`);
  const answers = (n) => page.waitForFunction(
    (n) => document.querySelector("#log").textContent.split("no AI was involved").length === n + 1, n,
  );
  await answers(1);
  await context.setOffline(true);
  await say("second");
  await say("third");
  await idle(session.id);
  await context.setOffline(false);
  await page.locator("#log").getByText("third").first().waitFor();
  const { data } = await get(`/v1/sessions/${session.id}/events?types[]=agent.message`);
  await answers(data.length);
  await context.close();
}

async function cookie() {
  const { page, context, close } = await open();
  await signIn(page);
  for (const path of ["/v1/agents", "/api/agents"]) {
    assert.equal((await context.request.get(server.url + path)).status(), 401, path);
  }
  const agent = (await get("/v1/agents")).data[0];
  const forged = await context.request.post(`${server.url}/agents/${agent.id}/webhook`, {
    form: { action: "generate", csrf: "forged" },
    headers: { origin: server.url },
  });
  assert.ok([400, 403].includes(forged.status()), `a forged form: ${forged.status()}`);
  const elsewhere = await context.request.get(`${server.url}/agents`, { headers: { host: "evil.example" } });
  assert.ok(elsewhere.status() >= 400, "another host's name");
  const cookies = await context.cookies();
  assert.ok(cookies.length > 0 && cookies.every((it) => it.httpOnly && it.sameSite === "Strict"));
  assert.ok(cookies.every((it) => !it.value.includes(server.key)), "the key is in a cookie");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.waitForURL(/sign-in/);
  await close();
}

async function readOnly() {
  const { page, close } = await open();
  const { key } = await post("/v1/api_keys", { name: "looker", scopes: ["read"] });
  await signIn(page, key);
  const agent = (await get("/v1/agents")).data[0];
  await page.goto(`${server.url}/agents/${agent.id}/webhook`);
  await page.getByText("Endpoint").first().waitFor();
  assert.equal(await page.getByRole("button", { name: /Generate|Store/ }).count(), 0);
  await close();
}

async function withoutScript() {
  const { page, close } = await open({ javaScriptEnabled: false });
  await signIn(page);
  const session = (await get("/v1/sessions")).data.find((it) => it.source);
  await page.goto(`${server.url}/sessions/${session.id}`);
  await page.getByText("Rehearsal: no AI was involved").first().waitFor();
  await close();
}

async function accessible(colorScheme, width) {
  const { page, close } = await open({ colorScheme, viewport: { width, height: 900 } });
  const look = async (what) => {
    const { violations } = await new AxeBuilder({ page }).analyze();
    const found = violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.target).join(", ")}`);
    assert.deepEqual(found, [], what);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(wide <= 0, `${what} is ${wide} px too wide`);
  };
  await page.goto(`${server.url}/sign-in`);
  await look("sign in");
  await signIn(page);
  await look("agents");
  const agent = (await get("/v1/agents")).data[0];
  const session = (await get("/v1/sessions")).data.find((it) => it.source);
  for (const path of [`/agents/${agent.id}/webhook`, "/sessions", `/sessions/${session.id}`]) {
    await page.goto(server.url + path);
    await look(path);
  }
  await close();
}

async function ring(endpoint, token, payload) {
  const response = await fetch(endpoint, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(payload),
  });
  return { status: response.status, answer: await response.json() };
}

async function idle(session) {
  for (const end = Date.now() + PATIENCE_MS; ; ) {
    const { status, messages_waiting } = await get(`/v1/sessions/${session}`);
    if (status === "idle" && messages_waiting === 0) return;
    assert.ok(Date.now() < end, `${session} is not idle`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function get(target) {
  const response = await fetch(server.url + target, { headers: { authorization: `Bearer ${server.key}` } });
  assert.equal(response.status, 200, target);
  return response.json();
}

async function post(target, body) {
  const response = await fetch(server.url + target, {
    method: "POST",
    headers: { authorization: `Bearer ${server.key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 200, `${target}: ${await response.clone().text()}`);
  return response.json();
}

async function start() {
  const data = path.join(directory, "data");
  const args = ["serve", "--data-dir", data, "--listen", "127.0.0.1:0"];
  const env = { ...process.env, BELLPULL_LIMITS__FREE_DISK_BYTES_MIN: "1048576" };
  const child = spawn(process.env.BELLPULL_TEST_BINARY, args, { env, stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  const url = await new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the server ended with ${code}:\n${log}`)));
    child.stderr.on("data", (piece) => {
      log += piece;
      const found = log.match(/bellpull is listening.*address=(\S+)/);
      if (found) resolve(`http://${found[1]}`);
    });
  });
  for (const end = Date.now() + PATIENCE_MS; ; ) {
    const ready = await fetch(`${url}/readyz`).catch(() => null);
    if (ready?.ok) break;
    assert.ok(Date.now() < end, "the server is not ready");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const key = (await readFile(path.join(data, "admin.key"), "utf8")).trim();
  return { process: child, url, key, log: () => log };
}
