// A server of its own for a file of tests, with a scripted model provider behind it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";

import Anthropic from "@anthropic-ai/sdk";

const PATIENCE_MS = 60_000;
const CONFIG = `[models]
retry_first_ms = 1
[models.prices."claude-sonnet-5-5"]
input_per_mtok = 3
output_per_mtok = "15"
`;

export const text = (said) => [{ type: "text", text: said }];
let nCalls = 0;
export const tool = (name, input) => [{ type: "tool_use", id: `toolu_${++nCalls}`, name, input }];
export const message = (said) => ({ type: "user.message", content: [{ type: "text", text: said }] });

/** What `ask` answers as soon as it is true; an error after a while. */
export async function until(what, ask) {
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end; ) {
    const answer = await ask();
    if (answer) return answer;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail(`never came to be: ${what}`);
}

/** Sends the events and gives those of the stream until the session rests. */
export async function run(client, session, ...events) {
  const stream = await client.beta.sessions.events.stream(session.id);
  await client.beta.sessions.events.send(session.id, { events });
  const seen = [];
  for await (const event of stream) {
    seen.push(event);
    if (["session.status_idle", "session.status_terminated"].includes(event.type)) break;
  }
  return seen;
}

/** `say(...replies)` queues answers of the model, which are lists of content blocks or functions of the
 * request; `requests` are those that came. */
async function startProvider() {
  const provider = { requests: [], replies: [], say: (...replies) => provider.replies.push(...replies) };
  provider.server = createServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    provider.requests.push(JSON.parse(body));
    let reply = provider.replies.shift() ?? text("Done.");
    if (typeof reply === "function") reply = await reply(JSON.parse(body));
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const [type, data] of frames(reply)) {
      response.write(`event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`);
    }
    response.end();
  });
  provider.server.listen(0, "127.0.0.1");
  await once(provider.server, "listening");
  provider.url = `http://127.0.0.1:${provider.server.address().port}`;
  return provider;
}

function* frames(blocks) {
  const usage = { input_tokens: 100, output_tokens: 1 };
  yield ["message_start", { message: { id: "msg_1", type: "message", role: "assistant", content: [], model: "m", stop_reason: null, usage } }];
  for (const [index, block] of blocks.entries()) {
    if (block.type === "text") {
      yield ["content_block_start", { index, content_block: { type: "text", text: "" } }];
      yield ["content_block_delta", { index, delta: { type: "text_delta", text: block.text } }];
    } else {
      yield ["content_block_start", { index, content_block: { ...block, input: {} } }];
      const partial_json = JSON.stringify(block.input);
      yield ["content_block_delta", { index, delta: { type: "input_json_delta", partial_json } }];
    }
    yield ["content_block_stop", { index }];
  }
  const stop_reason = blocks.some((it) => it.type === "tool_use") ? "tool_use" : "end_turn";
  yield ["message_delta", { delta: { stop_reason, stop_sequence: null }, usage: { output_tokens: 20 } }];
  yield ["message_stop", {}];
}

export async function start() {
  const directory = await mkdtemp(path.join(tmpdir(), "bellpull-sdk-"));
  const provider = await startProvider();
  const config = path.join(directory, "bellpull.toml");
  await writeFile(config, CONFIG);
  const data = path.join(directory, "data");
  const args = ["serve", "--config", config, "--data-dir", data, "--listen", "127.0.0.1:0"];
  const env = { PATH: process.env.PATH, ANTHROPIC_BASE_URL: provider.url, ANTHROPIC_API_KEY: "sdk-test-key" };
  const child = spawn(process.env.BELLPULL_TEST_BINARY, args, { env, stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  const baseURL = await new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the server ended with ${code}:\n${log}`)));
    child.stderr.on("data", (piece) => {
      log += piece;
      const found = log.match(/bellpull is listening.*address=(\S+)/);
      if (found) resolve(`http://${found[1]}`);
    });
  });
  await until("the server is ready", async () => (await fetch(`${baseURL}/readyz`).catch(() => null))?.ok);
  const apiKey = (await readFile(path.join(data, "admin.key"), "utf8")).trim();
  const stop = async () => {
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    await ended;
    provider.server.closeAllConnections();
    provider.server.close();
    await rm(directory, { recursive: true });
  };
  return { baseURL, apiKey, provider, data, stop, client: new Anthropic({ baseURL, apiKey }) };
}
