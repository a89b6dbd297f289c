// The pages of every day: overview, palette, deliveries, sources, agents, and a transcript in which
// somebody has to decide. The model is a script of this file.

import assert from 'node:assert/strict';
import http from 'node:http';
import { once } from 'node:events';
import { Suite } from './suite.mjs';
import { until } from './world.mjs';

// Answers as the last message asks: with a call of a tool, never, or with a word.
const model = http.createServer((request, response) => {
  let text = '';
  request.on('data', (bytes) => { text += bytes; });
  request.on('end', () => {
    const { messages } = JSON.parse(text);
    const last = messages.at(-1);
    const said = typeof last.content === 'string' ? last.content : JSON.stringify(last.content);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const send = (choice) => response.write(`data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', choices: [{ index: 0, ...choice }] })}\n\n`);
    // What was said after a stop stands beside what was said before it.
    const asked = last.role === 'user' ? [...said.matchAll(/hang|use (\w+)/g)].at(-1) : undefined;
    if (asked?.[0] === 'hang') {
      send({ delta: { content: 'I am still thinking' } });
      return;
    }
    const tool = asked?.[1];
    if (tool) {
      const call = { name: tool, arguments: JSON.stringify({ file_path: 'note.txt', content: 'a note', what: 'which room?' }) };
      send({ delta: { tool_calls: [{ index: 0, id: `call_${Date.now()}`, type: 'function', function: call }] } });
      send({ delta: {}, finish_reason: 'tool_calls' });
    } else {
      send({ delta: { content: 'All is done.' } });
      send({ delta: {}, finish_reason: 'stop' });
    }
    response.write(`data: ${JSON.stringify({ id: 'c', object: 'chat.completion.chunk', choices: [], usage: { prompt_tokens: 120, completion_tokens: 7 } })}\n\n`);
    response.end('data: [DONE]\n\n');
  });
});
model.listen(0, '127.0.0.1');
await once(model, 'listening');

const suite = await Suite.open('daily', {
  OPENAI_API_KEY: 'none',
  OPENAI_BASE_URL: `http://127.0.0.1:${model.address().port}`,
  BELLPULL_MODELS__OPENAI_API: 'chat_completions',
});
const { world, story, quiet } = suite;

// And without a complaint.
async function inspect(page, name, options) {
  await suite.inspect(page, name, options);
  quiet(page);
}

const page = await world.page();
const secret = 'a-secret-that-is-long';
let session;

const start = async (agent, text) => {
  const environment = (await world.api('/v1/environments')).data[0].id;
  const content = [{ type: 'text', text }];
  const made = await world.api('/v1/sessions', { agent, environment_id: environment });
  await world.api(`/v1/sessions/${made.id}/events`, { events: [{ type: 'user.message', content }] });
  return made.id;
};

await story('the overview, its theme and the way to every page', async () => {
  await world.signIn(page, '/');
  await page.getByRole('heading', { name: 'Needs you' }).waitFor();
  await page.getByText('Nothing waits for a person').waitFor();
  await inspect(page, 'overview', { looks: 2 });
  await page.getByRole('button', { name: 'dark' }).click();
  await page.locator('html[data-theme="dark"]').waitFor();
  await until('the server remembers it', async () => {
    await page.reload();
    return page.locator('html[data-theme="dark"]').count();
  });
  await page.getByRole('button', { name: 'auto' }).click();
  for (const name of ['Agents', 'Sources', 'Deliveries', 'Sessions']) {
    await page.getByRole('navigation').getByRole('link', { name, exact: true }).click();
    await page.getByRole('heading', { level: 1, name }).waitFor();
    const current = page.getByRole('navigation').locator('[aria-current="page"]');
    assert.equal(await current.textContent(), name);
  }
});

await story('the menu of a phone opens without a script', async () => {
  const phone = await world.page({ javaScriptEnabled: false, viewport: { width: 390, height: 844 } });
  await world.signIn(phone, '/');
  const link = phone.getByRole('link', { name: 'Sources', exact: true });
  assert.ok(!await link.isVisible());
  await phone.getByRole('button', { name: 'Menu' }).click();
  await link.click();
  await phone.getByRole('heading', { level: 1, name: 'Sources' }).waitFor();
  await phone.getByRole('button', { name: 'Menu' }).click();
  await phone.getByRole('button', { name: 'light' }).click();
  await phone.waitForURL('**/sources');
  await phone.locator('html[data-theme="light"]').waitFor();
  quiet(phone);
  await phone.context().close();
});

await story('a source is made in three steps, rings, and is looked at', async () => {
  await page.goto(`${world.base}/sources`);
  await inspect(page, 'sources-first', { looks: 2 });
  await page.getByRole('link', { name: 'New source' }).click();
  await page.getByLabel('Who sends?').fill('github');
  await page.keyboard.press('Enter');
  await page.waitForURL(/q=github/);
  await inspect(page, 'source-new', { looks: 2 });
  await page.getByRole('link', { name: /^GitHub/ }).first().click();
  await page.getByLabel('Name: the last part').fill('code');
  await page.getByLabel('Secret that you and the sender share').fill(secret);
  await inspect(page, 'source-new-secret', { looks: 2 });
  // Enter leads to the next step, and what is wrong on this one keeps it.
  await page.getByLabel('Name: the last part').fill('');
  await page.keyboard.press('Enter');
  await page.locator('#secret-step').getByRole('button', { name: 'Next' }).waitFor();
  await page.getByLabel('Name: the last part').fill('code');
  await page.keyboard.press('Enter');
  await page.getByLabel('Session', { exact: true }).selectOption('key');
  await page.getByRole('listitem').filter({ hasText: '3. Where it goes' }).and(page.locator('[aria-current]')).waitFor();
  await page.getByRole('button', { name: 'Back to its secret' }).click();
  await page.getByRole('button', { name: 'Next' }).click();
  await inspect(page, 'source-new-place', { looks: 2 });
  await page.getByLabel('or a project').fill('/nowhere');
  await page.getByLabel('Environment').selectOption({ index: 1 });
  await page.getByRole('button', { name: 'Make the source' }).click();
  await page.getByRole('alert').getByText('not both').waitFor();
  suite.quiet(page, /422/);
  // The form that is refused is there whole, as the secret has to be given again.
  await inspect(page, 'source-new-refused', { looks: 2 });
  await page.getByLabel('or a project').fill('');
  await page.getByLabel('Environment').selectOption('');
  await page.getByLabel('Secret that you and the sender share').fill(secret);
  await page.getByRole('button', { name: 'Make the source' }).click();
  await page.getByText('Two things are left').waitFor();
  assert.equal(await page.locator('#endpoint-url').textContent(), `${world.direct}/api/webhook/code`);
  assert.ok(!(await page.content()).includes(secret), 'a secret is never shown again');
  await page.getByRole('button', { name: 'Send a test' }).click();
  await page.getByRole('status').getByText('answered with 202').waitFor();
  await inspect(page, 'source', { looks: 2 });
  await page.goto(`${world.base}/sources`);
  await page.getByRole('link', { name: 'code' }).first().waitFor();
  await inspect(page, 'sources');
  const wrong = await fetch(`${world.direct}/api/webhook/code`, { method: 'POST', body: '{}' });
  assert.equal(wrong.status, 401);
  await until('the refusal is written down', async () => {
    await page.goto(`${world.base}/sources/code`);
    return page.getByText('None that are still kept').count().then((n) => n === 0);
  });
});

await story('settings are tried on what came, saved, and say what is wrong', async () => {
  await page.goto(`${world.base}/sources/code`);
  await page.getByText('Where it goes, filters, rules and limits').click();
  await page.getByLabel(/^Filter/).fill('event_type ==');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('alert').getByText(/^Filter/).waitFor();
  quiet(page, /status of 422/);
  await page.getByLabel(/^Filter/).fill('event_type == "nothing"');
  await page.getByRole('button', { name: 'Try on what came' }).click();
  await page.getByText(/would have gone another way/).waitFor();
  assert.equal(await page.getByLabel(/^Filter/).inputValue(), 'event_type == "nothing"');
  await inspect(page, 'source-tried', { looks: 2 });
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('status').getByText('The change is saved').waitFor();
  assert.equal((await world.api('/v1/sources/code')).filter, 'event_type == "nothing"');
  await page.getByText('Change the secret').click();
  await page.getByLabel('stops working').selectOption('3600');
  await page.getByRole('button', { name: 'Make a new secret' }).click();
  assert.match(await page.locator('#made-secret').textContent(), /^bps_/);
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.getByText('is paused: what comes in is held').waitFor();
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByRole('button', { name: 'Pause' }).waitFor();
});

await story('deliveries are filtered, inspected and replayed', async () => {
  await page.goto(`${world.base}/deliveries`);
  await page.getByLabel('Source').selectOption({ label: 'code' });
  await page.getByRole('button', { name: 'Show', exact: true }).click();
  await page.waitForURL(/source=/);
  const rows = page.getByRole('row');
  await until('there is one', async () => (await rows.count()) === 2);
  await inspect(page, 'deliveries', { looks: 2 });
  await page.getByText('Replay what is filtered').click();
  await page.getByLabel('Agent', { exact: true }).selectOption({ label: 'default' });
  await page.getByLabel('Version of the agent').fill('77');
  await page.getByRole('button', { name: 'Try without doing' }).click();
  await page.getByRole('alert').getByText('version').first().waitFor();
  suite.quiet(page, /422/);
  await page.getByLabel('Version of the agent').fill('1');
  await page.getByRole('button', { name: 'Try without doing' }).click();
  await page.getByRole('status').getByText('1 delivery would be replayed').waitFor();
  assert.equal(await page.getByLabel('Version of the agent').inputValue(), '1', 'what was tried is still there');
  await page.reload();
  assert.equal(await page.getByText('would be replayed').count(), 0, 'a reload repeats nothing');
  await rows.nth(1).getByRole('link').first().click();
  await page.getByRole('heading', { name: 'How it came in' }).waitFor();
  await page.getByText('let in by SOURCE_code_SECRET version 1').waitFor();
  await page.getByRole('rowheader', { name: 'x-github-delivery' }).waitFor();
  await inspect(page, 'delivery', { looks: 2 });
  await page.getByRole('button', { name: 'Try without doing' }).click();
  await page.getByRole('status').getByText('It would go to').waitFor();
  await page.getByLabel('Version of the agent').fill('99');
  await page.getByRole('button', { name: 'Replay', exact: true }).click();
  await page.getByRole('alert').getByText('It was not replayed').waitFor();
  await page.getByLabel('Version of the agent').fill('');
  await page.getByRole('button', { name: 'Replay', exact: true }).click();
  await page.getByText('somebody with a key replayed it').waitFor();
  quiet(page, /status of 422/);
});

await story('deliveries are searched: by ids, and by words of their bodies', async () => {
  const send = (body, id) => fetch(`${world.direct}/api/webhook/words`, {
    method: 'POST',
    headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json', 'x-delivery-id': id },
    body: JSON.stringify(body),
  }).then((response) => response.json());
  await world.api('/v1/sources', { name: 'words', preset: 'bearer', secret, identity: ['X-Delivery-Id'] });
  const sent = await send({ type: 'order.paid', buyer: 'Grüß Gott & Söhne' }, 'the-id-of-the-sender-42');
  await send({ type: 'order.lost' }, 'another');
  const rows = page.getByRole('table', { name: 'Deliveries' }).getByRole('row');
  const found = async (text, n) => {
    await page.goto(`${world.base}/deliveries`);
    await page.getByLabel('Search').fill(text);
    await page.keyboard.press('Enter');
    await page.waitForURL(/q=/);
    if (n === 0) await page.getByText('Nothing fits.').waitFor();
    else await until(`${text} is found`, async () => (await rows.count()) === n + 1);
  };
  for (const text of [sent.delivery_id, 'the-id-of-the-sender-42', 'SENDER-42', 'Gott & Söhne', 'ORDER.paid']) {
    await found(text, 1);
    await rows.nth(1).getByText('order.paid').waitFor();
  }
  await found(sent.session_id, 1);
  await found('order.', 2);
  await inspect(page, 'deliveries-searched', { looks: 2 });
  assert.equal(await page.getByText('Replay what is filtered').count(), 0, 'what is searched is not replayed by its filter');
  await found('100% of nothing\\_', 0);
  await inspect(page, 'deliveries-none', { looks: 2 });
});

await story('the palette jumps by keyboard', async () => {
  await page.locator('#find[data-ready]').waitFor({ state: 'attached' });
  await page.keyboard.press('Control+k');
  const input = page.getByRole('combobox', { name: /^Find/ });
  await input.fill('cod');
  await page.getByRole('option', { name: /source code/ }).waitFor();
  await inspect(page, 'palette', { looks: 2 });
  await page.keyboard.press('Enter');
  await page.waitForURL('**/sources/code');
  const { data } = await world.api('/v1/deliveries');
  await page.locator('#find[data-ready]').waitFor({ state: 'attached' });
  await page.keyboard.press('Control+k');
  await input.fill(data[0].id);
  await page.getByRole('option', { name: /delivery/ }).waitFor();
  await page.keyboard.press('Enter');
  await page.waitForURL(`**/deliveries/${data[0].id}`);

  // Whoever is faster than the server gets to where the letters lead, not to the first of the list before.
  let answer;
  const asked = new Promise((resolve) => { answer = resolve; });
  await page.route('**/find?part=found&q=vaults', async (route) => {
    await asked;
    await route.continue();
  });
  await page.locator('#find[data-ready]').waitFor({ state: 'attached' });
  await page.keyboard.press('Control+k');
  await page.getByRole('listbox', { name: 'Found' }).getByRole('option').first().waitFor();
  await input.fill('vaults');
  await page.keyboard.press('Enter');
  answer();
  await page.waitForURL('**/vaults');

  await page.goto(`${world.base}/find?q=deliv`);
  await inspect(page, 'find', { looks: 2 });
  quiet(page);
});

await story('the API is a page, and its shapes are a click away', async () => {
  await page.goto(`${world.base}/`);
  await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'API', exact: true }).click();
  await page.getByRole('heading', { level: 1, name: 'API' }).waitFor();
  const endpoint = page.locator('details.endpoint', { hasText: 'POST /v1/sessions ' }).first();
  await endpoint.locator('summary').click();
  await inspect(page, 'reference', { without: ['.shape ~ .shape', '.endpoint ~ .endpoint'], whole: false });
  await endpoint.getByRole('link', { name: 'SessionCreate' }).first().click();
  await page.locator('#schema-SessionCreate').waitFor();
  assert.ok(page.url().endsWith('#schema-SessionCreate'));
});

await story('an agent is made, changed and compared', async () => {
  await page.goto(`${world.base}/new-agent`);
  await inspect(page, 'agent-new', { looks: 2 });
  await page.getByLabel('Name').fill('night porter');
  await page.getByLabel('Model').fill('openai/night');
  await page.getByText('Everything else, as JSON').click();
  await page.getByLabel('Tools and their policies').fill('[{');
  await page.getByRole('button', { name: 'Make the agent' }).click();
  await page.getByRole('alert').getByText('The tools are no JSON').waitFor();
  assert.equal(await page.locator('#wrong').count(), 1, 'and beside the field');
  quiet(page, /status of 422/);
  assert.equal(await page.getByLabel('Name').inputValue(), 'night porter');
  const tools = [
    { type: 'agent_toolset_20260401', configs: [{ name: 'write', enabled: true, permission_policy: { type: 'always_ask' } }] },
    { type: 'custom', name: 'desk', description: 'Asks the desk.', input_schema: { type: 'object', properties: { what: { type: 'string' } } } },
  ];
  await page.getByLabel('Tools and their policies').fill(JSON.stringify(tools));
  await page.getByRole('button', { name: 'Make the agent' }).click();
  await page.getByRole('heading', { level: 1, name: 'night porter' }).waitFor();
  await page.getByLabel('System prompt').fill('Be quiet.\nBe brief.');
  await page.getByRole('button', { name: 'Save as a new version' }).click();
  await page.getByRole('status').getByText('version 2').waitFor();
  await page.getByText('Version 2,').click();
  await page.locator('.diff ins').getByText('Be brief.').waitFor();
  await inspect(page, 'agent', { looks: 2 });
  const chosen = (name) => page.getByRole('combobox', { name, exact: true });
  assert.deepEqual(await Promise.all(['write', 'bash'].map((it) => chosen(it).inputValue())), ['ask', 'allow']);
  await chosen('bash').selectOption('off');
  await chosen('web_fetch').selectOption('ask');
  await page.getByRole('button', { name: 'Save as a new version' }).click();
  await page.getByRole('status').getByText('version 3').waitFor();
  const { id } = (await world.api('/v1/agents')).data.find((it) => it.name === 'night porter');
  const saved = (await world.api(`/v1/agents/${id}`)).tools;
  const config = (name) => saved[0].configs.find((it) => it.name === name);
  assert.equal(config('bash').enabled, false);
  assert.equal(config('web_fetch').permission_policy.type, 'always_ask');
  assert.equal(saved[1].name, 'desk', 'what no table has stays');
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.getByText('This agent is paused').waitFor();
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByRole('button', { name: 'Pause' }).waitFor();
  await page.goto(`${world.base}/agents`);
  await inspect(page, 'agents', { looks: 2 });
});

await story('tools of an MCP server have policies, all of them and single ones', async () => {
  const made = await world.api('/v1/agents', {
    name: 'clerk',
    model: 'rehearsal',
    mcp_servers: [{ type: 'url', name: 'crm', url: 'https://mcp.example.com/mcp' }],
    tools: [{ type: 'mcp_toolset', mcp_server_name: 'crm', default_config: { enabled: true, permission_policy: { type: 'always_allow' } } }],
  });
  await page.goto(`${world.base}/agents/${made.id}`);
  const group = page.getByRole('group', { name: 'Tools of the MCP server crm' });
  assert.equal(await group.getByLabel('all', { exact: true }).inputValue(), 'allow');
  await group.getByLabel('one more, by its name').fill('delete_contact');
  await page.getByRole('button', { name: 'Save as a new version' }).click();
  await page.getByRole('status').getByText('version 2').waitFor();
  const own = group.getByLabel('delete_contact', { exact: true });
  assert.equal(await own.inputValue(), 'ask');
  assert.equal(await group.getByLabel('all others').inputValue(), 'allow');
  await inspect(page, 'agent-mcp');
  const configs = async () => (await world.api(`/v1/agents/${made.id}`)).tools[0].configs;
  assert.deepEqual(await configs(), [{ name: 'delete_contact', enabled: true, permission_policy: { type: 'always_ask' } }]);
  await own.selectOption('as the others');
  await page.getByRole('button', { name: 'Save as a new version' }).click();
  await page.getByRole('status').getByText('version 3').waitFor();
  assert.deepEqual([await own.count(), await configs()], [0, []]);
  quiet(page);
});

await story('the webhook of an agent is rung from its page', async () => {
  const { id } = (await world.api('/v1/agents')).data.find((it) => it.name === 'clerk');
  await page.goto(`${world.base}/agents/${id}/webhook`);
  const test = page.getByRole('button', { name: 'Send a test' });
  assert.equal(await test.count(), 0, 'nothing can be sent without a token');
  await page.getByRole('button', { name: 'Generate a token' }).click();
  await page.getByText('the only time you see it').waitFor();
  await test.click();
  await page.getByRole('status').getByText('answered with 202: accepted').waitFor();
  await page.locator('#deliveries li').first().waitFor();
  await page.getByText('From Zendesk, for example').click();
  assert.match(await page.locator('#zendesk').textContent(), /"subject": "\{\{ticket\.title\}\}"/);
  await inspect(page, 'webhook-tested');
  quiet(page);
});

await story('an agent is paused in the list, and archived after a question', async () => {
  await page.goto(`${world.base}/agents`);
  const row = page.getByRole('row', { name: /clerk/ });
  await row.getByRole('button', { name: 'Pause clerk' }).click();
  await row.getByText('paused').waitFor();
  assert.equal(new URL(page.url()).pathname, '/agents', 'it stays with the list');
  await row.getByRole('button', { name: 'Resume clerk' }).click();
  await row.getByText('ready').waitFor();
  await row.getByRole('link', { name: 'clerk' }).click();
  await page.getByRole('link', { name: 'Archive…' }).click();
  await page.getByRole('heading', { name: 'Archive the agent clerk?' }).waitFor();
  await inspect(page, 'agent-archive');
  await page.getByRole('link', { name: 'Leave it as it is' }).click();
  await page.getByRole('link', { name: 'Archive…' }).click();
  await page.getByRole('button', { name: 'Archive the agent' }).click();
  await page.getByRole('heading', { level: 1, name: 'clerk' }).waitFor();
  await page.getByText('archived', { exact: true }).first().waitFor();
  assert.equal(await page.getByRole('button', { name: 'Save as a new version' }).count(), 0);
  await page.goto(`${world.base}/agents`);
  assert.equal(await row.count(), 0);
  await page.getByRole('link', { name: 'Show archived' }).click();
  await row.getByText('archived').waitFor();
  assert.equal(await row.getByRole('button', { name: /clerk/ }).count(), 1, 'its webhook only');
  quiet(page);
});

await story('somebody allows a call, denies another, and stops a turn', async () => {
  const agent = (await world.api('/v1/agents')).data.find((it) => it.name === 'night porter');
  session = await start(agent.id, 'please use write');
  await page.goto(world.base);
  await page.getByRole('link', { name: /asks to run write/ }).click();
  await page.waitForURL(`**/sessions/${session}**`);
  await page.getByText('policy: ask').waitFor();
  await inspect(page, 'session-asks', { looks: 2 });
  await page.getByRole('button', { name: 'Allow' }).click();
  await page.locator('.result .label').getByText(/^(answered|failed) in/).waitFor();
  await page.getByText('All is done.').waitFor();

  await page.getByLabel('Message to the agent').fill('and again use write');
  await page.getByRole('button', { name: 'Send' }).click();
  await page.getByRole('button', { name: 'Deny' }).click();
  await page.locator('.entry.line').getByText(/^denied/).waitFor();
  await page.locator('#head[data-status="idle"]').waitFor();

  await page.getByLabel('Message to the agent').fill('now hang');
  await page.getByRole('button', { name: 'Send' }).click();
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByText('stopped by hand').waitFor();
  await page.locator('#head[data-status="idle"]').waitFor();

  await page.getByLabel('Message to the agent').fill('use desk');
  await page.getByRole('button', { name: 'Send' }).click();
  await page.getByText('waits for the result from your program').waitFor({ state: 'attached' });
  await page.locator('.entry.tool').last().locator('summary').click();
  await inspect(page, 'session', { looks: 2 });
});

await story('a transcript is taken away, archived and deleted', async () => {
  const headers = { cookie: (await page.context().cookies()).map((it) => `${it.name}=${it.value}`).join('; ') };
  const json = await (await fetch(`${world.base}/sessions/${session}/transcript.json`, { headers })).json();
  assert.equal(json.session.id, session);
  assert.ok(json.events.some((it) => it.type === 'agent.custom_tool_use'));
  const text = await (await fetch(`${world.base}/sessions/${session}/transcript.md`, { headers })).text();
  assert.match(text, /### Tool write/);
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.locator('#head[data-status="idle"]').waitFor();
  await page.goto(`${world.base}/sessions?title=&agent=`);
  await inspect(page, 'sessions', { looks: 2 });
  await page.goto(`${world.base}/sessions/${session}`);
  await page.getByRole('link', { name: 'Delete …' }).click();
  await page.getByRole('button', { name: 'Delete for good' }).waitFor();
  await inspect(page, 'session-delete', { looks: 2 });
  await page.getByRole('link', { name: 'Leave it as it is' }).click();
  await page.getByRole('button', { name: 'Archive' }).click();
  await page.locator('#head[data-status="archived"]').waitFor();
  await page.getByRole('link', { name: 'Delete …' }).click();
  await page.getByRole('button', { name: 'Delete for good' }).click();
  await page.getByRole('heading', { level: 1, name: 'Sessions' }).waitFor();
  assert.equal(await page.getByRole('link', { name: new RegExp(session) }).count(), 0);
});

await story('the deliveries before the last fifty are a page away', async () => {
  await world.api('/v1/sources', { name: 'many', preset: 'bearer', secret });
  for (let n = 0; n < 55; n += 1) await world.api('/v1/sources/many/test', { body: { n } });
  const { id } = await world.api('/v1/sources/many');
  await page.goto(`${world.base}/deliveries?source=${id}`);
  const rows = page.getByRole('row');
  assert.equal(await rows.count(), 51);
  await page.getByRole('link', { name: 'Older deliveries' }).click();
  await page.waitForURL(/page=/);
  assert.equal(await rows.count(), 6);
  assert.equal(await page.getByLabel('Source').inputValue(), id, 'the filter stays');
});

await story('a source is removed once its name is written', async () => {
  await page.goto(`${world.base}/sources/many`);
  await page.getByText('Remove this source').click();
  await page.getByLabel('to remove it').fill('man');
  await page.getByRole('button', { name: 'Remove' }).click();
  await page.getByRole('alert').getByText('Write the name').waitFor();
  await page.getByText('Remove this source').click();
  await page.getByLabel('to remove it').fill('many');
  await page.getByRole('button', { name: 'Remove' }).click();
  await page.waitForURL(/sources\?done=removed$/);
  await page.getByRole('status').getByText('The source is removed').waitFor();
  assert.equal(await page.getByRole('link', { name: 'many', exact: true }).count(), 0);
  quiet(page, /status of 422/);
});

await story('a key that may only read finds nothing to change', async () => {
  const { key } = await world.api('/v1/api_keys', { name: 'looker', scopes: ['read'] });
  const { data } = await world.api('/v1/deliveries');
  const agent = (await world.api('/v1/agents')).data[0].id;
  const looker = await world.page();
  await looker.goto(world.base);
  await looker.getByLabel('API key').fill(key);
  await looker.keyboard.press('Enter');
  await looker.getByText('read only').waitFor();
  const talks = data.find((it) => it.session_id)?.session_id;
  const places = ['/', '/agents', `/agents/${agent}`, '/sources', '/sources/code', '/deliveries', `/deliveries/${data[0].id}`, '/sessions', `/sessions/${talks}`];
  for (const place of places) {
    await looker.goto(world.base + place);
    const words = /Save|Replay|Release|Pause|Send|Store|Make|Remove|Archive|Delete|Allow|Deny|Stop|New /;
    assert.equal(await looker.getByRole('button', { name: words }).count(), 0, place);
    assert.equal(await looker.getByRole('link', { name: /New source|New agent|Delete/ }).count(), 0, place);
  }
  quiet(looker);
  await looker.context().close();
});

model.closeAllConnections();
model.close();
await suite.close();
