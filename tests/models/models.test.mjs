// Turns of a real server with a model server that others wrote, in each wire format: what our own
// scripted server and our client might both have understood wrongly shows here.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, test } from "node:test";

import { LLMock } from "@copilotkit/aimock";

const TOKEN = "model-test-token-0123456789";
const KEY = "model-test-key-0123456789";
const PATIENCE_MS = 60_000;

const FORMATS = [
  { format: "Anthropic Messages", model: "claude-sonnet-5-5", api: "auto", path: "/v1/messages" },
  { format: "Chat Completions", model: "openai/gpt-4o", api: "auto", path: "/v1/chat/completions" },
  { format: "Responses", model: "openai/gpt-5", api: "responses", path: "/v1/responses" },
];

for (const { format, model, api, path: asked } of FORMATS) {
  describe(format, () => {
    let directory, mock, server;

    before(async () => {
      directory = await mkdtemp(path.join(tmpdir(), "bellpull-models-"));
      mock = new LLMock({ port: 0, chunkSize: 3 });
      script(mock);
      await mock.start();
      server = await start(directory, mock.url, model, api);
    });

    after(async () => {
      server?.process.kill("SIGTERM");
      if (server) await new Promise((resolve) => server.process.once("exit", resolve));
      await mock?.stop();
      await rm(directory, { recursive: true });
    });

    test("an answer comes whole, with its tokens and their price", async () => {
      const { outcome, events, session } = await ring({ type: "order.paid", say: "hello" });
      assert.equal(outcome, "succeeded", JSON.stringify(events));
      assert.equal(only(events, "agent.message").content[0].text, "Grüße, 世界! 🦀 Noted.");
      const { model_usage } = only(events, "span.model_request_end");
      assert.deepEqual([model_usage.input_tokens, model_usage.output_tokens], [1200, 34]);
      assert.equal(session.usage.cost_usd, "0.004110");
      assert.equal(mock.getLastRequest().path, asked);
    });

    test("a tool goes round", async () => {
      const filler = Array.from({ length: 500 }, (_, n) => `line ${n}`);
      const { outcome, events } = await ring({ type: "report", say: "use the tool", filler, secret: "xyzzy" });
      assert.equal(outcome, "succeeded");
      assert.equal(only(events, "agent.tool_use").input.pointer, "/secret");
      assert.equal(only(events, "agent.tool_result").content[0].text, '"xyzzy"');
      const said = events.filter((it) => it.type === "agent.message").map((it) => it.content[0].text);
      assert.deepEqual(said, ["Let me look.", "It is xyzzy."]);
    });

    test("an answer with thoughts goes on after its tool", async () => {
      const { outcome, events } = await ring({ type: "report", say: "think first" });
      assert.equal(outcome, "succeeded");
      assert.equal(only(events, "agent.message").content[0].text, "Thought through.");
      assert.ok(events.some((it) => it.type === "agent.thinking"), "thoughts are shown as such");
    });

    test("an error that passes is waited for", async () => {
      mock.nextRequestError(529, { message: "Overloaded", type: "overloaded_error" });
      const { outcome, events } = await ring({ type: "order.paid", say: "hello", again: 1 });
      assert.equal(outcome, "succeeded");
      const { error } = only(events, "session.error");
      assert.deepEqual([error.type, error.retry_status.type], ["model_overloaded_error", "retrying"]);
      only(events, "session.status_rescheduled");
    });

    test("a connection that is cut is made again", async () => {
      const { outcome, events } = await ring({ type: "order.paid", say: "cut this short" });
      assert.equal(outcome, "succeeded");
      assert.equal(only(events, "agent.message").content[0].text, "This time all of it.");
      only(events, "session.status_rescheduled");
    });

    test("what the server does not know is no reason to ask again", async () => {
      const { outcome, events } = await ring({ type: "order.paid", say: "nobody expects this" });
      assert.equal(outcome, "failed");
      assert.equal(only(events, "session.error").error.retry_status.type, "exhausted");
    });

    async function ring(payload) {
      const response = await fetch(`${server.url}/api/webhook/shop`, {
        method: "POST",
        headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" },
        body: JSON.stringify(payload),
      });
      assert.equal(response.status, 202);
      const rung = await response.json();
      for (const end = Date.now() + PATIENCE_MS; ; ) {
        const { outcome } = await get(`/v1/deliveries/${rung.delivery_id}`);
        if (!["pending", "running"].includes(outcome)) {
          const session = await get(`/v1/sessions/${rung.session_id}`);
          const events = (await get(`/v1/sessions/${rung.session_id}/events`)).data;
          return { outcome, session, events };
        }
        assert.ok(Date.now() < end, `${payload.say} was not answered in time`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }

    async function get(target) {
      const headers = { authorization: `Bearer ${server.key}` };
      const response = await fetch(server.url + target, { headers });
      assert.equal(response.status, 200, target);
      return response.json();
    }
  });
}

// The one event of a type.
function only(events, type) {
  const found = events.filter((it) => it.type === type);
  assert.equal(found.length, 1, `${type} in ${JSON.stringify(events.map((it) => it.type))}`);
  return found[0];
}

function script(mock) {
  const says = (text, response, more = {}) => mock.on({ userMessage: `"say":"${text}"`, ...more }, response);
  says("hello", {
    content: "Grüße, 世界! 🦀 Noted.",
    usage: { prompt_tokens: 1200, completion_tokens: 34, total_tokens: 1234 },
  });
  const call = (pointer) => [{ name: "delivery", arguments: { pointer } }];
  says("use the tool", { content: "It is xyzzy." }, { toolResultContains: "xyzzy" });
  says("use the tool", { content: "Let me look.", toolCalls: call("/secret") }, { hasToolResult: false });
  says("think first", { content: "Thought through." }, { hasToolResult: true });
  says("think first", { reasoning: "What may this be?", toolCalls: call("/type") }, { hasToolResult: false });
  const fixture = { match: { userMessage: '"say":"cut this short"', sequenceIndex: 0 } };
  mock.addFixture({ ...fixture, response: { content: "This is never whole." }, truncateAfterChunks: 2 });
  says("cut this short", { content: "This time all of it." }, { sequenceIndex: 1 });
}

async function start(directory, model_url, model, api) {
  const config = path.join(directory, "bellpull.toml");
  const prices = ["claude-sonnet-5-5", "gpt-4o", "gpt-5"].map(
    (name) => `[models.prices."${name}"]\ninput_per_mtok = 3\noutput_per_mtok = "15"\n`,
  );
  await writeFile(
    config,
    `[models]\nopenai_api = "${api}"\nretry_first_ms = 1\n${prices.join("")}` +
      `[agents.concierge]\nmodel = "${model}"\n` +
      `[webhooks.shop]\npreset = "bearer"\nsecret = "${TOKEN}"\nagent = "concierge"\n` +
      `[limits]\nfree_disk_bytes_min = 1048576\n`,
  );
  const data = path.join(directory, "data");
  const args = ["serve", "--config", config, "--data-dir", data, "--listen", "127.0.0.1:0"];
  const env = {
    PATH: process.env.PATH,
    ANTHROPIC_BASE_URL: model_url,
    ANTHROPIC_API_KEY: KEY,
    OPENAI_BASE_URL: `${model_url}/v1`,
    OPENAI_API_KEY: KEY,
  };
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
  return { process: child, url, key: (await readFile(path.join(data, "admin.key"), "utf8")).trim() };
}
