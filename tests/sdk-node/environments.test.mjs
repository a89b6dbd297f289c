// Environments as the SDK makes, changes and removes them.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { start } from "./support.mjs";

let server, client, environments;
before(async () => {
  server = await start();
  client = server.client;
  environments = client.beta.environments;
});
after(() => server?.stop());

const noPackages = { type: "packages", apt: [], cargo: [], gem: [], go: [], npm: [], pip: [] };

test("an update keeps what it leaves out", async () => {
  const networking = { type: "limited", allowed_hosts: ["packages.example.com"], allow_package_managers: true };
  const config = { type: "cloud", networking, packages: { pip: ["rich"] } };
  const made = await environments.create({ name: "limited", config, metadata: { a: "1" } });
  const whole = { ...networking, allow_mcp_servers: false };
  assert.deepEqual(made.config.networking, whole);
  const changed = await environments.update(made.id, {
    config: { type: "cloud", packages: { npm: ["left-pad"] } },
    metadata: { a: "", b: "2" },
    description: "changed",
  });
  assert.deepEqual(changed.config, {
    type: "cloud",
    networking: whole,
    packages: { ...noPackages, pip: ["rich"], npm: ["left-pad"] },
  });
  assert.deepEqual([changed.metadata, changed.description], [{ b: "2" }, "changed"]);
  assert.deepEqual(await environments.retrieve(made.id), changed);
});

test("a name is taken once, and free again when it is archived or deleted", async () => {
  const made = await environments.create({ name: "one" });
  assert.deepEqual(made.config, { type: "cloud", networking: { type: "unrestricted" }, packages: noPackages });
  await assert.rejects(environments.create({ name: "one" }), Anthropic.ConflictError);
  assert((await environments.archive(made.id)).archived_at);
  await assert.rejects(environments.update(made.id, { name: "two" }), (error) => {
    assert(error instanceof Anthropic.BadRequestError);
    assert.equal(error.error.error.details.error_code, "environment_archived");
    return true;
  });
  const again = await environments.create({ name: "one" });
  assert.deepEqual(await environments.delete(again.id), { id: again.id, type: "environment_deleted" });
  await assert.rejects(environments.retrieve(again.id), Anthropic.NotFoundError);
  const ids = [];
  for await (const it of environments.list({ limit: 1, include_archived: true })) ids.push(it.id);
  assert(ids.includes(made.id) && !ids.includes(again.id));
});
