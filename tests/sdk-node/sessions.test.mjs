// Sessions as the SDK makes and drives them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { message, run, start, text } from "./support.mjs";

let server, client, agent, environment;
before(async () => {
  server = await start();
  client = server.client;
  agent = await client.beta.agents.create({ name: "concierge", model: "claude-sonnet-5-5" });
  environment = await client.beta.environments.create({ name: "shared by the tests" });
});
after(() => server?.stop());

const make = (more) =>
  client.beta.sessions.create({ agent: agent.id, environment_id: environment.id, ...more });

test("a message is answered", async () => {
  server.provider.say(text("Good evening."));
  const session = await make();
  const seen = await run(client, session, message("Good evening?"));
  const said = seen.filter((it) => it.type === "agent.message").map((it) => it.content[0].text);
  assert.deepEqual(said, ["Good evening."]);
});

test("a session has a snapshot of its agent, with what is its own", async () => {
  const vault = await client.beta.vaults.create({ display_name: "of the night" });
  const session = await make({
    agent: { type: "agent_with_overrides", id: agent.id, system: "Be brief.", tools: [] },
    title: "night",
    vault_ids: [vault.id],
    initial_events: [message("hello")],
  });
  assert.deepEqual(
    [session.status, session.title, session.vault_ids, session.agent.system, session.agent.version],
    ["running", "night", [vault.id], "Be brief.", 1],
  );
  assert.deepEqual([session.budget, session.resources, session.outcome_evaluations], [null, [], []]);
});

test("it is changed, archived and deleted at rest", async () => {
  const session = await make({ metadata: { a: "1" } });
  const changed = await client.beta.sessions.update(session.id, { title: "new", metadata: { a: null, b: "2" } });
  assert.deepEqual([changed.title, changed.metadata], ["new", { b: "2" }]);
  const [event] = (await client.beta.sessions.events.list(session.id)).data;
  assert.deepEqual([event.type, event.title, event.metadata], ["session.updated", "new", { b: "2" }]);
  assert.equal((await client.beta.sessions.archive(session.id)).status, "terminated");
  await assert.rejects(client.beta.sessions.update(session.id, { title: "late" }), Anthropic.ConflictError);
  const deleted = await client.beta.sessions.delete(session.id);
  assert.deepEqual(deleted, { id: session.id, type: "session_deleted" });
  await assert.rejects(client.beta.sessions.retrieve(session.id), Anthropic.NotFoundError);
});

test("pages of a list lead both ways", async () => {
  const own = await client.beta.agents.create({ name: "busy", model: "claude-sonnet-5-5" });
  const ids = [];
  for (let n = 0; n < 3; n++) ids.unshift((await make({ agent: own.id })).id);
  const list = (page) => client.beta.sessions.list({ agent_id: own.id, limit: 2, page, statuses: ["idle"] });
  const first = await list();
  const second = await list(first.next_page);
  assert.deepEqual([...first.data, ...second.data].map((it) => it.id), ids);
  assert.equal(first.prev_page, null);
  assert.deepEqual((await list(second.prev_page)).data.map((it) => it.id), ids.slice(0, 2));
  const all = [];
  for await (const it of client.beta.sessions.list({ agent_id: own.id, limit: 1 })) all.push(it.id);
  assert.deepEqual(all, ids);
});

test("a session has one thread", async () => {
  const session = await make();
  const threads = (await client.beta.sessions.threads.list(session.id)).data;
  assert.deepEqual(threads.map((it) => [it.session_id, it.parent_thread_id, it.status]), [[session.id, null, "idle"]]);
  const thread = await client.beta.sessions.threads.retrieve(threads[0].id, { session_id: session.id });
  assert.deepEqual(thread, threads[0]);
});
