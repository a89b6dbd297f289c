// Below a path of a proxy: once with one that takes the path off, once with one that leaves it on.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { Suite } from './suite.mjs';
import { until } from './world.mjs';

const PATH = '/tools/bell';
let takesOff = true, outside = [], target;

const proxy = http.createServer((request, response) => {
  if (!request.url.startsWith(`${PATH}/`)) {
    outside.push(request.url);
    response.writeHead(404).end('another program');
    return;
  }
  const path = takesOff ? request.url.slice(PATH.length) : request.url;
  const onward = http.request(target + path, { method: request.method, headers: request.headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  response.on('close', () => onward.destroy());
  onward.on('error', () => response.destroy());
  request.pipe(onward);
}).listen(0, '127.0.0.1');
await once(proxy, 'listening');
const base = `http://127.0.0.1:${proxy.address().port}${PATH}`;

const suite = await Suite.open('below', { BELLPULL_PUBLIC_URL: base });
const { world, story, quiet } = suite;
target = world.direct;

for (const [how, off] of [['takes the path off', true], ['leaves the path on', false]]) {
  await story(`a proxy ${how}: pages, forms, the palette and a live transcript work`, async () => {
    takesOff = off;
    outside = [];
    const page = await world.page();
    await page.goto(`${base}/agents`);
    await page.waitForURL(`${base}/sign-in?next=*`);
    await page.getByLabel('API key').fill('the-master-key-of-the-browser-tests');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.waitForURL(`${base}/agents`);
    await page.locator('html[data-ready]').waitFor();
    const cookies = await page.context().cookies();
    assert.ok(cookies.every((it) => it.path.startsWith(PATH)), JSON.stringify(cookies));

    await page.getByRole('button', { name: 'Webhook of default' }).click();
    await page.getByRole('dialog').getByRole('button', { name: /^Generate/ }).click();
    const token = await page.locator('#made-token').textContent();
    const endpoint = await page.locator('#endpoint-url').textContent();
    assert.ok(endpoint.startsWith(`${base}/api/agents/`), endpoint);
    const sent = await fetch(endpoint, { method: 'POST', headers: { authorization: `Bearer ${token}` }, body: '{"event": "below"}' });
    assert.equal(sent.status, 202);
    const { session_id: session } = await sent.json();

    await page.goto(`${base}/sessions/${session}`);
    await page.locator('#head[data-status="idle"]').waitFor();
    await page.getByLabel('Message to the agent').fill('and once more');
    await page.getByRole('button', { name: 'Send' }).click();
    await page.waitForURL(`${base}/sessions/${session}#end`);
    const again = await world.api(`/v1/sessions/${session}/events`, { events: [{ type: 'user.message', content: [{ type: 'text', text: 'a third time' }] }] });
    assert.ok(again);
    await page.locator('#log').getByText('a third time').first().waitFor();

    await page.keyboard.press('Control+k');
    await page.getByRole('combobox').fill('vaults');
    await page.getByRole('option', { name: /Vaults/ }).waitFor();
    await page.keyboard.press('Enter');
    await page.waitForURL(`${base}/vaults`);
    await page.getByRole('button', { name: 'dark' }).click();
    await until('the light is remembered', async () => {
      await page.reload();
      return page.locator('html[data-theme="dark"]').count();
    });
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.waitForURL(`${base}/sign-in`);
    assert.deepEqual(outside, [], 'nothing was asked for outside of the path');
    quiet(page);
    await page.context().close();
  });
}

proxy.closeAllConnections();
proxy.close();
await suite.close();
