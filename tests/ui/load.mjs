// How much a page weighs, and that many open pages stay live.

import assert from 'node:assert/strict';
import http from 'node:http';
import { KEY, until } from './world.mjs';
import { Suite } from './suite.mjs';

// Bytes of a first visit with nothing in the browser's cache, as they come over the wire.
const BYTES_MAX = 150_000;

const PAGES = 200;

const suite = await Suite.open('load');
const { world, story, quiet } = suite;
const page = await world.page();
let session;

await story(`the first load of every page is below ${BYTES_MAX / 1000} kB`, async () => {
  await world.api('/v1/sources', { name: 'code', preset: 'github', secret: 'a-secret-that-is-long' });
  const sent = await world.api('/v1/sources/code/test', {});
  session = sent.answer.session_id;
  await world.signIn(page, '/agents');
  const agent = (await world.api('/v1/agents')).data[0].id;
  const delivery = (await world.api('/v1/deliveries')).data[0].id;
  const places = await page.getByRole('navigation').getByRole('link').evaluateAll(
    (all) => all.map((it) => it.getAttribute('href')),
  );
  places.push('/sources/code', '/new-source', '/new-agent', '/find', `/agents/${agent}`,
    `/agents/${agent}/webhook`, `/deliveries/${delivery}`, `/sessions/${session}`);
  const browser = await page.context().newCDPSession(page);
  await browser.send('Network.enable');
  await browser.send('Network.setCacheDisabled', { cacheDisabled: true });
  let bytes = 0;
  browser.on('Network.loadingFinished', (it) => { bytes += it.encodedDataLength; });
  const weights = [];
  for (const place of places) {
    bytes = 0;
    await page.goto(world.base + place, { waitUntil: 'load' });
    await page.locator('html[data-ready]').waitFor();
    weights.push([place, bytes]);
  }
  const heaviest = weights.reduce((one, other) => (one[1] > other[1] ? one : other));
  const kB = (n) => `${(n / 1000).toFixed(1)} kB`;
  console.log(`      the heaviest is ${heaviest[0]} with ${kB(heaviest[1])}`);
  assert.ok(heaviest[1] > 10_000, 'it was measured');
  assert.deepEqual(weights.filter(([, bytes]) => bytes > BYTES_MAX), []);
  quiet(page);
});

await story(`${PAGES} open pages stay live while deliveries come`, async () => {
  const cookie = (await page.context().cookies()).map((it) => `${it.name}=${it.value}`).join('; ');
  const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
  const seen = new Array(PAGES).fill('');
  const streams = seen.map((_, n) => {
    const request = http.get(`${world.direct}/sessions/${session}/live?after=0`, { agent, headers: { cookie } });
    request.on('response', (response) => {
      assert.equal(response.statusCode, 200);
      response.setEncoding('utf8').on('data', (text) => { seen[n] += text; });
    });
    request.on('error', () => {});
    return request;
  });
  // As many overviews look again by themselves meanwhile, as their pages do.
  let polls = 0, slowest = 0, done = false;
  const poll = async () => {
    while (!done) {
      const began = Date.now();
      const response = await fetch(`${world.direct}/?part=live`, { headers: { cookie, 'hx-request': 'true' } });
      assert.equal(response.status, 200);
      await response.text();
      slowest = Math.max(slowest, Date.now() - began);
      polls += 1;
      await new Promise((resolve) => setTimeout(resolve, 4000 * Math.random()));
    }
  };
  const pollers = Array.from({ length: PAGES }, poll);
  await until('all streams are open', () => seen.every((it) => it.length > 0));
  for (let n = 0; n < 20; n += 1) {
    const content = [{ type: 'text', text: `message number ${n} of the crowd` }];
    await world.api(`/v1/sessions/${session}/events`, { events: [{ type: 'user.message', content }] });
    await world.api('/v1/sources/code/test', { body: { n } });
  }
  await until('everybody has seen the last message', () => (
    seen.every((it) => it.includes('message number 19 of the crowd'))
  ));
  done = true;
  await Promise.all(pollers);
  console.log(`      ${polls} looks of overviews, the slowest took ${slowest} ms`);
  assert.ok(polls >= PAGES && slowest < 10_000);
  // A page in a browser lives among them.
  await page.goto(`${world.base}/sessions/${session}`);
  const content = [{ type: 'text', text: 'for the browser too' }];
  await world.api(`/v1/sessions/${session}/events`, { events: [{ type: 'user.message', content }] });
  await page.locator('#log').getByText('for the browser too').first().waitFor();
  for (const it of streams) it.destroy();
  agent.destroy();
  assert.ok(!world.log.includes(KEY));
  quiet(page);
});

await suite.close();
