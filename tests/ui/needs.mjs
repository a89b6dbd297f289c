// What needs a person: all of it on one page, counted, and settled there.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { Suite } from './suite.mjs';
import { until } from './world.mjs';

// Takes nothing until it is mended.
let answer = 410;
const receiver = http.createServer((request, response) => {
  request.resume().on('end', () => response.writeHead(answer).end());
}).listen(0, '127.0.0.1');
await once(receiver, 'listening');

const suite = await Suite.open('needs', {
  BELLPULL_OUTBOX__ALLOWED_PRIVATE_HOSTS: '127.0.0.1',
  BELLPULL_SANDBOX__MODE: 'none',
  BELLPULL_WORKER__LEASE_SECONDS: '5',
});
const { world, story, inspect, quiet } = suite;
const page = await world.page();
const go = (place) => page.goto(world.base + place);
const section = (name) => page.getByRole('region', { name: new RegExp(`^${name}`) });
const environment = (await world.api('/v1/environments')).data[0].id;

async function agent(name, policy, steps, more = {}) {
  const tools = [{ type: 'agent_toolset_20260401', configs: [
    { name: 'bash', enabled: true, permission_policy: { type: policy } },
    { name: 'write', enabled: true, permission_policy: { type: policy } },
  ] }];
  const system = `Rehearse this script:\n${JSON.stringify(steps)}`;
  return (await world.api('/v1/agents', { name, model: 'rehearsal', system, tools, ...more })).id;
}

async function start(agent) {
  const made = await world.api('/v1/sessions', { agent, environment_id: environment });
  const content = [{ type: 'text', text: 'work' }];
  await world.api(`/v1/sessions/${made.id}/events`, { events: [{ type: 'user.message', content }] });
  return made.id;
}

await story('nothing waits, and the page says what would', async () => {
  await world.signIn(page, '/needs');
  await page.getByText('Nothing waits for a person').waitFor();
  await inspect(page, 'empty');
  // What is said about the whole server is above the page, and not in its place.
  const box = (selector) => page.locator(selector).boundingBox();
  const [banner, main] = [await box('.trouble'), await box('main')];
  assert.ok(banner.x === main.x && main.x >= 180 && main.y >= banner.y + banner.height);
  quiet(page);
});

await story('twelve calls ask; two are answered on the page', async () => {
  const write = ['write', { file_path: 'notes/<b>.md', content: 'Gift cards are refunded first.' }];
  const porter = await agent('night porter', 'always_ask', [{ say: 'I note that.', calls: [write] }, { say: 'Done.' }]);
  const sessions = await Promise.all(Array.from({ length: 12 }, () => start(porter)));
  await until('all of them wait', async () => {
    await go('/');
    return page.getByText('Approvals: all 12').count();
  });
  assert.equal(await page.getByText('night porter asks to run write').count(), 3);
  await inspect(page, 'overview', { looks: 2 });
  // Where its agent is listed, its last session waits and is not idle.
  await go('/agents');
  await page.getByRole('row', { name: /night porter/ }).getByText('waiting').waitFor();
  await go('/');
  await page.getByText('Approvals: all 12').click();
  await page.waitForURL('**/needs?kind=approvals');
  const asks = section('Approvals').getByRole('listitem');
  assert.equal(await asks.count(), 12);
  await asks.first().getByText('Gift cards are refunded first.').waitFor();
  await asks.first().getByRole('button', { name: /^Allow/ }).click();
  await page.getByRole('status').getByText('The call is allowed').waitFor();
  assert.equal(await asks.count(), 11);
  await asks.first().getByRole('button', { name: /^Deny/ }).click();
  await page.getByRole('status').getByText('The call is denied').waitFor();
  await page.getByRole('navigation').getByRole('link', { name: /^Needs you 10/ }).waitFor();
  // Somebody answers elsewhere, and the list follows by itself.
  const last = asks.last();
  const call = (await last.getAttribute('id')).replace('need-', '');
  const [, , asking] = (await last.locator('form').getAttribute('action')).split('/');
  assert.ok(sessions.includes(asking));
  const events = [{ type: 'user.tool_confirmation', tool_use_id: call, result: 'allow' }];
  await world.api(`/v1/sessions/${asking}/events`, { events });
  await until('the list follows', async () => (await asks.count()) === 9);
  quiet(page);
});

await story('a held delivery is released, and a source that is broken is listed', async () => {
  await world.api('/v1/sources', { name: 'code', preset: 'bearer', secret: 'a-secret-that-is-long', filter: 'body.n > 0' });
  await world.api('/v1/sources/code/test', { body: { words: 'no number' } });
  await go('/needs');
  const held = section('Held deliveries');
  await held.getByText('there is no field n').waitFor();
  await world.api('/v1/sources/code', { filter: 'true' });
  await inspect(page, 'all');
  await held.getByRole('button', { name: 'Release' }).click();
  await page.getByRole('status').getByText('The delivery was replayed').waitFor();
  assert.equal(await held.count(), 0);
  quiet(page);
});

await story('a callback that was given up is sent again', async () => {
  const url = `http://127.0.0.1:${receiver.address().port}/results`;
  const teller = await agent('teller', 'always_allow', [{ say: 'Told.' }], { callback: { url } });
  const session = await start(teller);
  const given = section('Callbacks that were given up');
  await until('it is given up', async () => {
    await go('/needs');
    return given.count();
  });
  answer = 200;
  await given.getByRole('button', { name: 'Send again' }).click();
  await page.getByRole('status').getByText('It is sent again').waitFor();
  await until('it arrived', async () => (
    (await world.api(`/v1/outbox?session_id=${session}`)).data[0].status === 'sent'
  ));
  await go('/needs');
  assert.equal(await given.count(), 0);
  // The same from the session's page.
  answer = 410;
  const second = await start(teller);
  await until('it is given up too', async () => (
    (await world.api(`/v1/outbox?session_id=${second}`)).data[0]?.status === 'dead'
  ));
  answer = 200;
  await go(`/sessions/${second}`);
  await page.locator('#way').getByRole('button', { name: 'Send again' }).click();
  await until('it arrived as well', async () => (
    (await world.api(`/v1/outbox?session_id=${second}`)).data[0].status === 'sent'
  ));
  quiet(page);
});

await story('the server dies in the middle of a call, and somebody settles the doubt', async () => {
  const sleeps = await agent('sleeper', 'always_allow', [{ say: 'I wait.', calls: [['bash', { command: 'sleep 600' }]] }, { say: 'Done.' }]);
  const session = await start(sleeps);
  await until('the call is being carried out', async () => (
    (await world.api(`/v1/effects?session_id=${session}`)).data.some((it) => it.status === 'intended')
  ));
  // A page that is open would complain, and be sent to sign in by itself.
  await page.goto('about:blank');
  world.server.kill('SIGKILL');
  await once(world.server, 'exit');
  await world.serve();
  await page.context().clearCookies();
  await world.signIn(page, '/needs');
  const doubts = section('Effects in doubt');
  await until('it is in doubt', async () => {
    await go('/needs');
    return doubts.count();
  });
  await doubts.getByText('sleep 600').waitFor();
  await inspect(page, 'doubt', { looks: 2 });
  await doubts.getByRole('button', { name: 'It was not' }).click();
  await page.getByRole('status').getByText('What you found is written down').waitFor();
  assert.equal(await doubts.count(), 0);
  const { data } = await world.api(`/v1/effects?session_id=${session}`);
  assert.equal(data[0].status, 'failed');
  quiet(page);
});

await story('a key that may only read sees all of it and no button', async () => {
  const { key } = await world.api('/v1/api_keys', { name: 'looker', scopes: ['read'] });
  const looker = await world.page();
  await looker.goto(`${world.base}/needs`);
  await looker.getByLabel('API key').fill(key);
  await looker.keyboard.press('Enter');
  await looker.getByText('asks to run write').first().waitFor();
  assert.equal(await looker.getByRole('main').getByRole('button').count(), 0);
  quiet(looker);
  await looker.context().close();
});

receiver.close();
await suite.close();
