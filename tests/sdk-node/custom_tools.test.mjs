// Tools that the client has: called, answered, and run by the SDK's own runner.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { message, run, start, text, tool, until } from "./support.mjs";

const WEATHER = {
  type: "custom",
  name: "weather",
  description: "Tells the weather of a place.",
  input_schema: { type: "object", properties: { place: { type: "string" } }, required: ["place"] },
};

let server, client, session;
before(async () => {
  server = await start();
  client = server.client;
});
after(() => server?.stop());
beforeEach(async () => {
  server.provider.requests.length = 0;
  server.provider.replies.length = 0;
  const agent = await client.beta.agents.create({ name: "meteorologist", model: "claude-sonnet-5-5", tools: [WEATHER] });
  const environment = await client.beta.environments.create({ name: `tools ${Math.random()}` });
  session = await client.beta.sessions.create({ agent: agent.id, environment_id: environment.id });
});

const result = (call, said, more = {}) => ({
  type: "user.custom_tool_result",
  custom_tool_use_id: call,
  content: [{ type: "text", text: said }],
  ...more,
});

async function last() {
  const page = await client.beta.sessions.events.list(session.id, { order: "desc", limit: 1 });
  return page.data[0];
}

test("a call waits for its result", async () => {
  assert.deepEqual(session.agent.tools, [WEATHER]);
  server.provider.say([...tool("weather", { place: "Oslo" }), ...tool("weather", { place: "Rome" })], text("Both."));
  const seen = await run(client, session, message("How is it?"));
  const calls = seen.filter((it) => it.type === "agent.custom_tool_use");
  assert.deepEqual(calls.map((it) => it.input.place), ["Oslo", "Rome"]);
  const idle = seen.at(-1);
  assert.deepEqual(idle.stop_reason, { type: "requires_action", event_ids: calls.map((it) => it.id) });
  assert.equal(idle.stop_details, null);

  await client.beta.sessions.events.send(session.id, { events: [result(calls[1].id, "sun")] });
  await until("it waits for the other one", async () => {
    const event = await last();
    return event.type === "session.status_idle" && event.stop_reason.event_ids?.join() === calls[0].id;
  });
  const refused = client.beta.sessions.events.send(session.id, { events: [result(calls[1].id, "snow")] });
  await assert.rejects(refused, (error) => error instanceof Anthropic.BadRequestError && /answered before/.test(error.message));
  const rest = await run(client, session, result(calls[0].id, "rain", { is_error: true }));
  assert.deepEqual(rest.map((it) => it.type), [
    "user.custom_tool_result", "session.status_running", "span.model_request_start", "agent.message",
    "span.model_request_end", "session.status_idle",
  ]);
  assert.equal(rest[0].is_error, true);
  assert.equal(rest.at(-1).stop_reason.type, "end_turn");
});

test("the runner of the SDK answers calls", async () => {
  server.provider.say(tool("weather", { place: "Oslo" }), tool("weather", { place: "nowhere" }), text("All told."));
  const weather = {
    ...WEATHER,
    run: async ({ place }) => {
      if (place === "nowhere") throw new Error("there is no such place");
      return `sun in ${place}`;
    },
    parse: (input) => input,
  };
  await client.beta.sessions.events.send(session.id, { events: [message("go")] });
  const made = [];
  for await (const call of client.beta.sessions.events.toolRunner(session.id, { tools: [weather], maxIdleMs: 200 })) {
    made.push([call.name, call.isError, call.posted]);
  }
  assert.deepEqual(made, [["weather", false, true], ["weather", true, true]]);
  assert.equal((await last()).stop_reason.type, "end_turn");
  const told = server.provider.requests[1].messages.at(-1).content[0];
  assert.equal(told.content[0].text, "sun in Oslo");
});
