// Takes the pictures of docs/ui.md anew: `tests/ui/run --screenshots docs/images`.

import fs from 'node:fs';
import path from 'node:path';
import { World, until } from './world.mjs';

const [directory] = process.argv.slice(2);
fs.mkdirSync(directory, { recursive: true });
const world = await World.open();

const secret = 'a-secret-that-is-long';
for (const [name, preset] of [['github', 'github'], ['stripe', 'stripe'], ['alertmanager', 'bearer'], ['tickets', 'zendesk'], ['deploys', 'bearer'], ['mail', 'mailgun']]) {
  await world.api('/v1/sources', { name, preset, secret });
}
await world.api('/v1/sources/stripe', { filter: 'event_type != "charge.refunded"' });
const test = (name, body) => world.api(`/v1/sources/${name}/test`, body ? { body } : {});
const issue = {
  action: 'opened',
  issue: { number: 42, title: 'Checkout fails with a 500 when the cart holds a gift card', labels: ['bug'] },
  repository: { full_name: 'acme/shop' },
  sender: { login: 'mara-lind' },
};
for (let n = 0; n < 4; n += 1) await test('github', { ...issue, n });
await test('stripe');
await test('stripe', { id: 'evt_9', type: 'charge.refunded', data: {} });
const alert = { status: 'firing', alerts: [{ labels: { alertname: 'DiskWillFillIn4Hours', instance: 'db-3' } }], groupLabels: { alertname: 'DiskWillFillIn4Hours' } };
for (let n = 0; n < 3; n += 1) {
  const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' };
  await fetch(`${world.direct}/api/webhook/alertmanager`, { method: 'POST', headers, body: JSON.stringify({ ...alert, n }) });
}
await fetch(`${world.direct}/api/webhook/alertmanager`, { method: 'POST', body: '{}' });
await world.api('/v1/sources/deploys/pause', {});
await test('deploys', { project: 'shop', state: 'failed', commit: '4f2a91c' });

// An agent that asks before it writes.
const write = ['write', { file_path: 'notes/gift-cards.md', content: 'Gift cards are refunded first.' }];
const think = 'Two tickets of this week are about gift cards. Whoever comes next should not have to find that out again.';
const script = [{ think, say: 'I note that for the shop.', calls: [write] }, { say: 'It is noted.' }];
const porter = await world.api('/v1/agents', {
  name: 'night porter',
  model: 'rehearsal',
  description: 'Looks at what comes in after ten in the evening.',
  system: 'Be quiet.',
  tools: [{ type: 'agent_toolset_20260401', configs: [{ name: 'write', enabled: true, permission_policy: { type: 'always_ask' } }] }],
});
await world.api(`/v1/agents/${porter.id}`, { version: 1, system: `Rehearse this script:\n${JSON.stringify(script)}` });
await world.api('/v1/sources/tickets', { agent: porter.id });
await test('tickets');

await until('everything is answered', async () => (
  (await world.api('/v1/sessions')).data.every((it) => it.status === 'idle')
));

const { data } = await world.api('/v1/deliveries');
const [first, asks] = ['github', 'tickets'].map((name) => data.find((it) => it.source === name));
const pages = [
  ['overview', '/', 'light', 1280],
  ['overview-dark', '/', 'dark', 1280],
  ['overview-phone', '/', 'dark', 390],
  ['needs', '/needs', 'light', 1280],
  ['deliveries', '/deliveries', 'light', 1280],
  ['delivery', `/deliveries/${first.id}`, 'light', 1280],
  ['session', `/sessions/${asks.session_id}`, 'dark', 1280],
  ['new-source', '/new-source?preset=github', 'light', 1280],
  ['agents', '/agents', 'light', 1280],
  ['agent', `/agents/${porter.id}`, 'light', 1280],
  ['webhook', `/agents/${porter.id}/webhook`, 'light', 1280],
];
const page = await world.page();
await world.signIn(page, '/');
for (const [name, place, colorScheme, width] of pages) {
  await page.setViewportSize({ width, height: width < 500 ? 844 : 800 });
  await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
  await page.goto(world.base + place);
  await page.locator('html[data-ready]').waitFor();
  await page.screenshot({ path: path.join(directory, `${name}.png`), caret: 'initial' });
}
await world.close();
