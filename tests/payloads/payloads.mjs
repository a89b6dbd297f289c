// Real payloads: each example is accepted, rendered word for word, and readable by the agent, both
// at a named source (where long ones are cut and read on) and at an agent's own endpoint.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";

const events = createRequire(import.meta.url)("@octokit/webhooks-examples");
const TOKEN = "payload-test-token-0123456789";
const CUT = 2000;
const READ = 64 * 1024;
const PATIENCE_MS = 120_000;

const directory = await mkdtemp(path.join(tmpdir(), "bellpull-payloads-"));
const server = await start();
try {
  const examples = events.flatMap(({ name, examples }) =>
    examples.map((payload, n) => ({ event: name, id: `${name}-${n}`, body: JSON.stringify(payload) })),
  );
  assert.ok(examples.length > 100, `only ${examples.length} examples`);
  const agent = (await get("/v1/agents")).data.find((it) => it.name === "default");
  await post("/v1/secrets", { name: `WEBHOOK_${agent.id}_SECRET`, value: TOKEN });
  await inBatches(examples, 16, throughSource);
  await inBatches(examples, 16, (example) => throughAgent(agent.id, example));
  await inBatches(examples, 16, isDuplicate);
  console.log(`${3 * examples.length} passed, 0 failed`);
} finally {
  server.process.kill("SIGTERM");
  await new Promise((resolve) => server.process.once("exit", resolve));
  await rm(directory, { recursive: true });
}

async function throughSource(example) {
  const answer = await ring("/api/webhook/github", example);
  assert.equal(answer.status, "accepted", example.id);
  const delivery = await settled(answer.delivery_id);
  assert.equal(delivery.outcome, "succeeded", example.id);
  assert.equal(delivery.event_type, example.event);
  assert.equal(await text(`/v1/deliveries/${delivery.id}/body`), example.body, example.id);

  const log = (await get(`/v1/sessions/${answer.session_id}/events`)).data;
  const message = log.find((it) => it.type === "user.message");
  const characters = [...example.body];
  const shown = characters.slice(0, CUT).join("");
  assert.ok(message.content[0].text.startsWith(`Webhook from github:\n${shown}`), example.id);
  assert.equal(message.origin.cut, characters.length > CUT);
  const read = log.find((it) => it.type === "agent.tool_result");
  assert.equal(read !== undefined, message.origin.cut, example.id);
  if (read && Buffer.byteLength(example.body) <= READ) {
    assert.equal(read.content[0].text, example.body, example.id);
  }
  assert.match(log.find((it) => it.type === "agent.message").content[0].text, /bytes of JSON/);
}

async function throughAgent(agent, example) {
  const answer = await ring(`/api/agents/${agent}/webhook`, example);
  assert.equal(answer.status, "accepted", example.id);
  assert.equal((await settled(answer.delivery_id)).outcome, "succeeded", example.id);
  const log = (await get(`/v1/sessions/${answer.session_id}/events`)).data;
  const message = log.find((it) => it.type === "user.message");
  assert.equal(message.content[0].text, JSON.stringify(JSON.parse(example.body), null, 2), example.id);
}

async function isDuplicate(example) {
  assert.equal((await ring("/api/webhook/github", example)).status, "duplicate", example.id);
}

async function inBatches(list, width, work) {
  const waiting = list.values();
  await Promise.all(Array.from({ length: width }, async () => { for (const it of waiting) await work(it); }));
}

async function ring(target, { event, id, body }) {
  const response = await fetch(server.url + target, {
    method: "POST",
    headers: {
      authorization: `Bearer ${TOKEN}`,
      "content-type": "application/json",
      "x-github-event": event,
      "x-github-delivery": id,
    },
    body,
  });
  assert.equal(response.status, 202, `${id}: ${response.status}`);
  return response.json();
}

async function settled(id) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const delivery = await get(`/v1/deliveries/${id}`);
    if (!["pending", "running"].includes(delivery.outcome)) return delivery;
    assert.ok(Date.now() < end, `${id} was not answered in time`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function text(target) {
  const response = await fetch(server.url + target, { headers: { authorization: `Bearer ${server.key}` } });
  assert.equal(response.status, 200, target);
  return response.text();
}

async function get(target) {
  return JSON.parse(await text(target));
}

async function post(target, body) {
  const response = await fetch(server.url + target, {
    method: "POST",
    headers: { authorization: `Bearer ${server.key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 200, target);
  return response.json();
}

async function start() {
  const config = path.join(directory, "bellpull.toml");
  await writeFile(config, `[webhooks.github]\npreset = "bearer"\nsecret = "${TOKEN}"\n[limits]\nfree_disk_bytes_min = 1048576\n`);
  const data = path.join(directory, "data");
  const args = ["serve", "--config", config, "--data-dir", data, "--listen", "127.0.0.1:0"];
  const process = spawn(globalThis.process.env.BELLPULL_TEST_BINARY, args, { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  const url = await new Promise((resolve, reject) => {
    process.once("exit", (code) => reject(new Error(`the server ended with ${code}:\n${log}`)));
    process.stderr.on("data", (piece) => {
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
  return { process, url, key: (await readFile(path.join(data, "admin.key"), "utf8")).trim() };
}
