// Vaults and credentials as the TypeScript SDK makes, changes and puts them away.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { message, run, start, text, tool } from "./support.mjs";

let server, client, provider;
before(async () => {
  server = await start();
  ({ client, provider } = server);
});
after(() => server.stop());

const url = "https://mcp.example.com/mcp";
const bearer = { type: "static_bearer", mcp_server_url: url, token: "tkn-very-secret" };
const variable = { type: "environment_variable", secret_name: "API_TOKEN", secret_value: "the value", networking: { type: "unrestricted" } };

test("a vault and its credentials from their making to their end", async () => {
  const { vaults } = client.beta;
  const vault = await vaults.create({ display_name: "Ada's", metadata: { user: "ada" } });
  assert.equal(vault.type, "vault");
  assert.match(vault.id, /^vlt_/);
  const changed = await vaults.update(vault.id, { metadata: { user: null, tier: "1" } });
  assert.deepEqual(changed.metadata, { tier: "1" });
  const made = await vaults.credentials.create(vault.id, { auth: bearer, display_name: "one" });
  assert.deepEqual(made.auth, { type: "static_bearer", mcp_server_url: url });
  assert.equal(made.vault_id, vault.id);
  const quick = new Anthropic({ baseURL: server.baseURL, apiKey: server.apiKey, maxRetries: 0 });
  await assert.rejects(quick.beta.vaults.credentials.create(vault.id, { auth: bearer }), Anthropic.ConflictError);
  const place = { vault_id: vault.id };
  const updated = await vaults.credentials.update(made.id, { ...place, auth: { type: "static_bearer", token: "next-very-secret" } });
  assert.ok(!JSON.stringify(updated).includes("very-secret"));
  await vaults.credentials.create(vault.id, { auth: variable });
  const seen = [];
  for await (const it of vaults.credentials.list(vault.id, { limit: 1 })) seen.push(it.auth.type);
  assert.deepEqual(seen, ["environment_variable", "static_bearer"]);
  assert.ok((await vaults.credentials.archive(made.id, place)).archived_at);
  assert.deepEqual(await vaults.credentials.delete(made.id, place), { id: made.id, type: "vault_credential_deleted" });
  await assert.rejects(quick.beta.vaults.credentials.retrieve(made.id, place), Anthropic.NotFoundError);
  assert.ok((await vaults.archive(vault.id)).archived_at);
  assert.deepEqual(await vaults.delete(vault.id), { id: vault.id, type: "vault_deleted" });
  await assert.rejects(quick.beta.vaults.retrieve(vault.id), Anthropic.NotFoundError);
});

test("a session's programs get the variables of its vaults", async () => {
  const vault = await client.beta.vaults.create({ display_name: "of a session" });
  await client.beta.vaults.credentials.create(vault.id, { auth: variable });
  const agent = await client.beta.agents.create({ name: "concierge", model: "claude-sonnet-5-5", tools: [{ type: "agent_toolset_20260401" }] });
  const environment = await client.beta.environments.create({ name: "of vaults" });
  const session = await client.beta.sessions.create({ agent: agent.id, environment_id: environment.id, vault_ids: [vault.id] });
  assert.deepEqual(session.vault_ids, [vault.id]);
  provider.say(tool("bash", { command: 'printf "<%s>" "$API_TOKEN"' }), text("ok"));
  const seen = await run(client, session, message("go"));
  const result = seen.find((it) => it.type === "agent.tool_result");
  assert.match(result.content[0].text, /<the value>/);
});
