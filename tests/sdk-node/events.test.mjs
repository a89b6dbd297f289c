// Events as the SDK sends, lists and follows them.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { message, run, start, text, tool, until } from "./support.mjs";

let server, client, environment;
before(async () => {
  server = await start();
  client = server.client;
  environment = await client.beta.environments.create({ name: "shared by the tests" });
});
after(() => server?.stop());
beforeEach(() => {
  server.provider.requests.length = 0;
  server.provider.replies.length = 0;
});

async function make(configs = [], more = {}) {
  const set = { type: "agent_toolset_20260401", default_config: { enabled: false }, configs };
  const agent = await client.beta.agents.create({ name: "worker", model: "claude-sonnet-5-5", tools: [set] });
  return client.beta.sessions.create({ agent: agent.id, environment_id: environment.id, ...more });
}

const entry = (name, policy) => ({ name, enabled: true, permission_policy: { type: policy } });

async function events(session, query = {}) {
  const found = [];
  for await (const event of client.beta.sessions.events.list(session.id, query)) found.push(event);
  return found;
}

test("a plain turn, seen and listed", async () => {
  const session = await make();
  server.provider.say(text("Good evening."));
  const seen = await run(client, session, message("Good evening?"));
  assert.deepEqual(seen.map((it) => it.type), [
    "user.message", "session.status_running", "user.message", "span.model_request_start", "agent.message",
    "span.model_request_end", "session.status_idle",
  ]);
  assert.equal(seen[0].processed_at, null);
  assert.equal(seen[0].id, seen[2].id);
  assert.equal(seen[5].model_request_start_id, seen[3].id);
  assert.deepEqual(seen[6].stop_reason, { type: "end_turn" });
  assert.deepEqual(await events(session), seen.slice(1));
  assert.deepEqual(await events(session, { limit: 2 }), seen.slice(1));
  assert.deepEqual(await events(session, { order: "desc" }), seen.slice(1).reverse());
  const types = ["agent.message", "session.status_idle"];
  assert.deepEqual((await events(session, { types })).map((it) => it.type), types);
  const later = { "created_at[gt]": seen[6].processed_at };
  assert.deepEqual(await events(session, later), []);
});

test("a call is allowed, another one denied", async () => {
  const session = await make([entry("write", "always_ask")]);
  const write = (name) => tool("write", { file_path: name, content: "x" });
  server.provider.say([...write("a"), ...write("b")], text("One of them."));
  const seen = await run(client, session, message("write"));
  const ids = seen.filter((it) => it.type === "agent.tool_use").map((it) => it.id);
  assert.deepEqual(seen.at(-1).stop_reason, { type: "requires_action", event_ids: ids });
  const rest = await run(
    client, session,
    { type: "user.tool_confirmation", tool_use_id: ids[0], result: "allow" },
    { type: "user.tool_confirmation", tool_use_id: ids[1], result: "deny", deny_message: "one is enough" },
  );
  assert.deepEqual(rest.map((it) => it.type), [
    "user.tool_confirmation", "user.tool_confirmation", "session.status_running", "agent.tool_result",
    "agent.tool_result", "span.model_request_start", "agent.message", "span.model_request_end", "session.status_idle",
  ]);
  assert.match(rest[4].content[0].text, /one is enough/);
});

test("an interrupt ends the turn", async () => {
  const session = await make([entry("write", "always_ask")]);
  server.provider.say(tool("write", { file_path: "a", content: "x" }));
  await run(client, session, message("write"));
  const rest = await run(client, session, { type: "user.interrupt" });
  assert.deepEqual(rest.map((it) => it.type), ["user.interrupt", "agent.tool_result", "session.status_idle"]);
  assert.deepEqual(rest.at(-1).stop_reason, { type: "end_turn" });
});

test("previews come in order and end in the event", async () => {
  const session = await make();
  server.provider.say(text("The bell rings."));
  const stream = await client.beta.sessions.events.stream(session.id, { event_deltas: ["agent.message"] });
  await client.beta.sessions.events.send(session.id, { events: [message("ring")] });
  const seen = [];
  for await (const event of stream) {
    seen.push(event);
    if (event.type === "session.status_idle") break;
  }
  const begun = seen.find((it) => it.type === "event_start");
  const final = seen.find((it) => it.type === "agent.message");
  assert.deepEqual(begun.event, { type: "agent.message", id: final.id });
  const pieces = seen.filter((it) => it.type === "event_delta").map((it) => it.delta.content.text);
  assert.equal(pieces.join(""), "The bell rings.");
  assert.ok(seen.indexOf(begun) < seen.indexOf(final));
});

test("a stream ends when its session is over", async () => {
  const session = await make();
  const stream = await client.beta.sessions.events.stream(session.id);
  await client.beta.sessions.archive(session.id);
  const seen = [];
  for await (const event of stream) seen.push(event.type);
  assert.deepEqual(seen, ["session.status_terminated"]);
  const send = client.beta.sessions.events.send(session.id, { events: [message("more")] });
  await assert.rejects(send, Anthropic.ConflictError);
});

test("a lost answer is no second message", async () => {
  const session = await make();
  let n = 0;
  const losing = new Anthropic({
    baseURL: server.baseURL,
    apiKey: server.apiKey,
    fetch: async (url, init) => {
      const response = await fetch(url, init);
      if (init.method?.toUpperCase() === "POST" && n++ === 0) {
        await response.text();
        throw new TypeError("the answer was lost");
      }
      return response;
    },
  });
  const sent = await losing.beta.sessions.events.send(session.id, { events: [message("once")] });
  assert.equal(n, 2, "it was sent twice");
  await until("the turn ends", async () => (await events(session)).at(-1)?.type === "session.status_idle");
  const said = (await events(session)).filter((it) => it.type === "user.message");
  assert.deepEqual(said.map((it) => it.id), [sent.data[0].id]);
});
