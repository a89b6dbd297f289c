// Agents, their versions and the rules of their updates, as the SDK sees them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { start } from "./support.mjs";

let server, client, impatient;
before(async () => {
  server = await start();
  client = server.client;
  impatient = new Anthropic({ baseURL: server.baseURL, apiKey: server.apiKey, maxRetries: 0 });
});
after(() => server?.stop());

const toolset = { type: "agent_toolset_20260401" };
const make = (more) => client.beta.agents.create({ name: "concierge", model: "claude-sonnet-5-5", ...more });

test("an agent is answered with every default filled in", async () => {
  const configs = [{ name: "bash", type: "bash", enabled: false }];
  const agent = await make({ tools: [{ ...toolset, configs }], metadata: { desk: "front" } });
  assert.deepEqual(agent.model, { id: "claude-sonnet-5-5", speed: "standard", effort: { type: "high" } });
  assert.deepEqual(agent.tools, [
    {
      ...toolset,
      default_config: { enabled: true, permission_policy: { type: "always_allow" } },
      configs: [{ ...configs[0], permission_policy: { type: "always_allow" } }],
    },
  ]);
  assert.deepEqual([agent.version, agent.archived_at, agent.multiagent], [1, null, null]);
  assert.deepEqual(agent.execution_identity, { type: "service_account" });
  assert.deepEqual(await client.beta.agents.retrieve(agent.id), agent);
});

test("an update makes a version, and a stale one is refused at once", async () => {
  const agent = await make({ system: "one", metadata: { a: "1" } });
  const update = (fields) => client.beta.agents.update(agent.id, fields);
  assert.equal((await update({ system: "one" })).version, 1);
  const changed = await update({ system: null, metadata: { a: null, b: "2" }, version: 1 });
  assert.deepEqual([changed.version, changed.system, changed.metadata], [2, null, { b: "2" }]);
  await assert.rejects(update({ name: "late", version: 1 }), (error) => {
    assert(error instanceof Anthropic.ConflictError);
    assert.equal(error.headers.get("x-should-retry"), "false");
    assert.equal(error.requestID, error.error.request_id);
    return true;
  });
  assert.equal((await client.beta.agents.retrieve(agent.id, { version: 1 })).system, "one");
  const versions = [];
  for await (const it of client.beta.agents.versions.list(agent.id, { limit: 1 })) versions.push(it.version);
  assert.deepEqual(versions, [2, 1]);
});

test("an archived agent is read-only, and left out of lists", async () => {
  const agent = await make();
  assert((await client.beta.agents.archive(agent.id)).archived_at);
  await assert.rejects(impatient.beta.agents.update(agent.id, { name: "x" }), Anthropic.ConflictError);
  const ids = async (query) => {
    const found = [];
    for await (const it of client.beta.agents.list(query)) found.push(it.id);
    return found;
  };
  assert(!(await ids()).includes(agent.id));
  assert((await ids({ include_archived: true, limit: 2 })).includes(agent.id));
});

test("each error has its class", async () => {
  const { BadRequestError, AuthenticationError, NotFoundError } = Anthropic;
  await assert.rejects(impatient.beta.agents.create({ name: "", model: "m" }), BadRequestError);
  await assert.rejects(impatient.beta.agents.retrieve("agent_01nobody"), NotFoundError);
  await assert.rejects(impatient.beta.memoryStores.list(), NotFoundError);
  const nobody = new Anthropic({ baseURL: server.baseURL, apiKey: "nobody's", maxRetries: 0 });
  await assert.rejects(async () => nobody.beta.agents.list(), AuthenticationError);
});
