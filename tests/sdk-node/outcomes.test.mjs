// Outcomes as the SDK defines, follows and looks them up.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";

import Anthropic, { toFile } from "@anthropic-ai/sdk";

import { message, run, start, text, until } from "./support.mjs";

let server, client, environment, agent;
before(async () => {
  server = await start();
  client = server.client;
  environment = await client.beta.environments.create({ name: "of outcomes" });
  agent = await client.beta.agents.create({ name: "poet", model: "claude-sonnet-5-5" });
});
after(() => server?.stop());
beforeEach(() => {
  server.provider.requests.length = 0;
  server.provider.replies.length = 0;
});

const rubric = { type: "text", content: "- the second line rhymes" };
const outcome = (more = {}) => ({ type: "user.define_outcome", description: "Write a poem.", rubric, ...more });
const says = (verdict, explanation) => text(JSON.stringify({ verdict, explanation }));
const make = (more = {}) =>
  client.beta.sessions.create({ agent: agent.id, environment_id: environment.id, ...more });
const evaluations = async (session) => (await client.beta.sessions.retrieve(session.id)).outcome_evaluations;

test("an outcome is revised until it is reached", async () => {
  const session = await make();
  server.provider.say(
    text("roses are red"), says("needs_revision", "one line"),
    text("roses are red, and so is my bed"), says("satisfied", "it rhymes"),
  );
  const seen = await run(client, session, outcome({ max_iterations: 5 }));
  assert.deepEqual(seen.map((it) => it.type).filter((it) => !it.startsWith("span.model")), [
    "session.status_running", "user.define_outcome", "agent.message",
    "span.outcome_evaluation_start", "span.outcome_evaluation_end", "agent.message",
    "span.outcome_evaluation_start", "span.outcome_evaluation_end", "session.status_idle",
  ]);
  const [defined] = seen.filter((it) => it.type === "user.define_outcome");
  assert.equal(defined.max_iterations, 5);
  assert.deepEqual(defined.rubric, rubric);
  const ends = seen.filter((it) => it.type === "span.outcome_evaluation_end");
  assert.deepEqual(ends.map((it) => [it.result, it.explanation, it.iteration, it.outcome_id]), [
    ["needs_revision", "one line", 0, defined.outcome_id], ["satisfied", "it rhymes", 1, defined.outcome_id],
  ]);
  assert.deepEqual(ends[0].usage, {
    input_tokens: 100, output_tokens: 20, cache_creation_input_tokens: 0, cache_read_input_tokens: 0,
  });
  assert.deepEqual(seen.at(-1).stop_reason, { type: "end_turn" });
  const [shown] = await evaluations(session);
  assert.deepEqual(shown, {
    type: "outcome_evaluation", outcome_id: defined.outcome_id, description: "Write a poem.",
    result: "satisfied", iteration: 1, explanation: "it rhymes", completed_at: shown.completed_at,
  });
  assert.ok(Date.parse(shown.completed_at));
});

test("iterations are used up, and a file is a rubric", async () => {
  const file = await client.files.upload({ file: await toFile(Buffer.from("- four lines"), "rubric.md") });
  const session = await make({ initial_events: [message("You are a poet."), outcome({
    rubric: { type: "file", file_id: file.id }, max_iterations: 1,
  })] });
  assert.equal(session.status, "running");
  server.provider.say(text("a"), says("needs_revision", "three lines missing"), text("It is what it is."));
  await until("the session rests", async () => (await client.beta.sessions.retrieve(session.id)).status === "idle");
  assert.equal((await evaluations(session))[0].result, "max_iterations_reached");
  assert.ok(JSON.stringify(server.provider.requests[1]).includes("four lines"));
});

test("an interrupt ends the evaluation, and there is one at a time", async () => {
  const session = await make();
  let goOn;
  const waits = new Promise((resolve) => (goOn = resolve));
  server.provider.say(text("roses"), async () => (await waits, says("satisfied", "too late")));
  await client.beta.sessions.events.send(session.id, { events: [outcome()] });
  await until("it is evaluated", async () => (await evaluations(session))[0].result === "evaluating");
  const refused = (error) => error instanceof Anthropic.BadRequestError && /one at a time/.test(error.message);
  await assert.rejects(client.beta.sessions.events.send(session.id, { events: [outcome()] }), refused);
  await client.beta.sessions.events.send(session.id, { events: [{ type: "user.interrupt" }] });
  await until("it is over", async () => (await evaluations(session))[0].result === "interrupted");
  goOn();
});

test("bad outcomes are refused", async () => {
  const session = await make();
  for (const [more, place] of [
    [{ rubric: undefined }, "rubric"],
    [{ rubric: { type: "file", file_id: "file_01a01a01a01a01a01a01a01a01" } }, "rubric.file_id"],
    [{ rubric: { type: "text", content: "" } }, "rubric.content"],
    [{ description: "" }, "description"],
    [{ max_iterations: 21 }, "max_iterations"],
  ]) {
    const refused = (error) =>
      error instanceof Anthropic.BadRequestError && error.message.includes(`events[0].${place}`);
    await assert.rejects(client.beta.sessions.events.send(session.id, { events: [outcome(more)] }), refused, place);
  }
  assert.deepEqual(await evaluations(session), []);
  await assert.rejects(make({ initial_events: [outcome(), outcome()] }), /initial_events/);
});
