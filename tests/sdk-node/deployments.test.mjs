// Deployments, files and resources as the SDK makes and drives them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import Anthropic, { toFile } from "@anthropic-ai/sdk";

import { message, run, start, text, tool, until } from "./support.mjs";

let server, client, agent, environment;
before(async () => {
  server = await start();
  client = server.client;
  agent = await client.beta.agents.create({
    name: "concierge",
    model: "claude-sonnet-5-5",
    tools: [{ type: "agent_toolset_20260401" }],
  });
  environment = await client.beta.environments.create({ name: "shared by the tests" });
});
after(() => server?.stop());

const make = (more = {}) =>
  client.beta.deployments.create({
    name: "nightly",
    agent: agent.id,
    environment_id: environment.id,
    initial_events: [message("Report.")],
    ...more,
  });
const all = async (list) => {
  const found = [];
  for await (const one of list) found.push(one);
  return found;
};

test("a deployment is made, changed, paused, run and archived", async () => {
  const schedule = { type: "cron", expression: "0 9 * * 1-5", timezone: "Europe/Berlin" };
  const made = await make({ schedule });
  assert.equal(made.schedule.upcoming_runs_at.length, 5);
  assert.deepEqual(made.initial_events, [message("Report.")]);
  assert.deepEqual(await client.beta.deployments.retrieve(made.id), made);
  const changed = await client.beta.deployments.update(made.id, { name: "weekly" });
  assert.equal(changed.name, "weekly");
  // These have neither a body nor a type of one.
  const paused = await client.beta.deployments.pause(made.id);
  assert.deepEqual([paused.status, paused.paused_reason], ["paused", { type: "manual" }]);
  server.provider.say(text("Reported."));
  const ran = await client.beta.deployments.run(made.id);
  assert.deepEqual([ran.error, ran.trigger_context], [null, { type: "manual" }]);
  const session = await until("the session rests", async () => {
    const session = await client.beta.sessions.retrieve(ran.session_id);
    return session.status === "idle" && session;
  });
  assert.equal(session.deployment_id, made.id);
  assert.equal((await client.beta.deployments.unpause(made.id)).status, "active");
  const runs = await all(client.beta.deploymentRuns.list({ deployment_id: made.id, has_error: false }));
  assert.deepEqual(runs, [ran]);
  assert.deepEqual(await client.beta.deploymentRuns.retrieve(ran.id), ran);
  assert.ok((await client.beta.deployments.archive(made.id)).archived_at);
  await assert.rejects(client.beta.deployments.run(made.id), Anthropic.ConflictError);
});

test("a wrong schedule is refused with the reason", async () => {
  const schedule = { type: "cron", expression: "0 25 * * *", timezone: "UTC" };
  await assert.rejects(make({ schedule }), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.match(error.message, /hour `25` goes from 0 to 23/);
    return true;
  });
});

test("a file is uploaded, mounted, read and deleted", async () => {
  const bytes = Buffer.from("größe\n1,2\n");
  const file = await client.files.upload({ file: await toFile(bytes, "größe.csv", { type: "text/csv" }) });
  assert.deepEqual([file.filename, file.mime_type, file.size_bytes], ["größe.csv", "text/csv", bytes.length]);
  const answer = await client.files.download(file.id);
  assert.deepEqual(Buffer.from(await answer.arrayBuffer()), bytes);
  const session = await client.beta.sessions.create({
    agent: agent.id,
    environment_id: environment.id,
    resources: [{ type: "file", file_id: file.id, mount_path: "/workspace/a.csv" }],
  });
  server.provider.say(tool("read", { file_path: "a.csv" }), text("Done."));
  const seen = await run(client, session, message("Read."));
  assert.match(seen.find((it) => it.type === "agent.tool_result").content[0].text, /1,2/);
  const [resource] = await all(client.beta.sessions.resources.list(session.id));
  assert.equal(resource.mount_path, "/workspace/a.csv");
  await client.beta.sessions.resources.delete(resource.id, { session_id: session.id });
  assert.deepEqual(await client.files.delete(file.id), { id: file.id, type: "file_deleted" });
  assert.deepEqual(await all(client.files.list()), []);
});
