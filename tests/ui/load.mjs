// How much a page weighs, and that many open pages stay live.

import assert from 'node:assert/strict';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { KEY, until } from './world.mjs';
import { Suite } from './suite.mjs';

// Bytes of a first visit with nothing in the browser's cache, as they come over the wire.
const BYTES_MAX = 150_000;

// So many transcripts, and as many lists, are open at once.
const PAGES = 200;
const SESSIONS = 5;

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

// What a page looks at again by itself, and how often.
async function looksAgain(place) {
  await page.goto(world.base + place);
  return page.locator('[hx-get][hx-trigger^="every "]').evaluateAll((all) => all.map((it) => ({
    place: it.getAttribute('hx-get'),
    seconds: Number(it.getAttribute('hx-trigger').match(/^every (\d+)s$/)[1]),
  })));
}

await story(`${PAGES} open transcripts and ${PAGES} open lists stay live while deliveries come`, async () => {
  const cookie = (await page.context().cookies()).map((it) => `${it.name}=${it.value}`).join('; ');
  const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity });
  const sessions = [session];
  while (sessions.length < SESSIONS) sessions.push((await world.api('/v1/sources/code/test', {})).answer.session_id);
  assert.equal(new Set(sessions).size, SESSIONS);
  const { id: bell } = (await world.api('/v1/agents')).data[0];
  const lists = ['/', '/needs', '/deliveries', '/agents', '/sources', '/sources/code', '/sessions', `/agents/${bell}/webhook`];
  const open = [];
  for (const place of [...sessions.map((it) => `/sessions/${it}`), ...lists]) open.push(await looksAgain(place));
  // Every page counts what needs a person, and a list looks for what is new as well.
  assert.deepEqual(open.filter((it) => !it.some(({ place }) => place === '/needs?part=count')), []);
  assert.deepEqual(lists.filter((_, n) => open[SESSIONS + n].length < 2), []);
  await page.goto('about:blank');
  const seen = new Array(PAGES).fill('');
  const streams = seen.map((_, n) => {
    const place = `/sessions/${sessions[n % SESSIONS]}/live?after=0`;
    const request = http.get(world.direct + place, { agent, headers: { cookie } });
    request.on('response', (response) => {
      assert.equal(response.statusCode, 200);
      response.setEncoding('utf8').on('data', (text) => { seen[n] += text; });
    });
    request.on('error', () => {});
    return request;
  });
  // Each page was opened at another time, and looks again as often as it does in a browser.
  const looks = seen.flatMap((_, n) => [...open[n % SESSIONS], ...open[SESSIONS + (n % lists.length)]]).map((it) => ({ ...it, n: 0 }));
  let slowest = 0, done = false, stop;
  const stopped = new Promise((resolve) => { stop = resolve; });
  const poll = async (look) => {
    const wait = (share) => Promise.race([stopped, sleep(1000 * look.seconds * share)]);
    await wait(Math.random());
    while (!done) {
      const began = Date.now();
      const response = await fetch(world.direct + look.place, { headers: { cookie, 'hx-request': 'true' } });
      assert.equal(response.status, 200);
      const text = await response.text();
      slowest = Math.max(slowest, Date.now() - began);
      Object.assign(look, { n: look.n + 1, began, text });
      await wait(1);
    }
  };
  const pollers = looks.map(poll);
  await until('all streams are open', () => seen.every((it) => it.length > 0));
  let last;
  for (let n = 0; n < 20; n += 1) {
    const content = [{ type: 'text', text: `message number ${n} of the crowd` }];
    const events = [{ type: 'user.message', content }];
    await Promise.all(sessions.map((it) => world.api(`/v1/sessions/${it}/events`, { events })));
    last = await world.api('/v1/sources/code/test', { body: { n } });
  }
  const ended = Date.now();
  await until('everybody has seen the last message', () => (
    seen.every((it) => it.includes('message number 19 of the crowd'))
  ));
  await until('every page has looked once more', () => looks.every((it) => it.began > ended));
  done = true;
  stop();
  await Promise.all(pollers);
  const listing = looks.filter((it) => /part=(live|deliveries)/.test(it.place) && /^\/(deliveries|sources.code)/.test(it.place));
  assert.equal(listing.length, 2 * PAGES / lists.length);
  assert.ok(listing.every((it) => it.text.includes(last.answer.delivery_id)), 'lists have the last delivery');
  const polls = looks.reduce((sum, it) => sum + it.n, 0);
  console.log(`      ${polls} looks of pages, the slowest took ${slowest} ms`);
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
