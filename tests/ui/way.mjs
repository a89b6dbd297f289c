// The way of a delivery as it is looked at: what a model thinks, what stands beside a transcript, and
// pages and lists that follow by themselves.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { Suite } from './suite.mjs';
import { until } from './world.mjs';

// What comes back is taken, unless it is not.
let answer = 200;
const receiver = http.createServer((request, response) => {
  request.resume().on('end', () => response.writeHead(answer).end());
}).listen(0, '127.0.0.1');
await once(receiver, 'listening');

const suite = await Suite.open('way', {
  BELLPULL_OUTBOX__ALLOWED_PRIVATE_HOSTS: '127.0.0.1',
});
const { world, story, inspect, quiet } = suite;
const page = await world.page();
const go = (place) => page.goto(world.base + place);
const secret = 'a-secret-that-is-long';

const ring = (source, body, token = secret, more = {}) => fetch(`${world.direct}/api/webhook/${source}`, {
  method: 'POST',
  headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...more },
  body: JSON.stringify(body),
});

// Marks the page, so that a story can say that it was not loaded anew.
const stay = () => page.evaluate(() => { window.stays = true; });
const stayed = () => page.evaluate(() => window.stays === true);

const thought = 'A **bell** without a name: <b>nobody</b> rings it twice.';
const callback = { url: `http://127.0.0.1:${receiver.address().port}/results` };
const system = `Rehearse this script:\n${JSON.stringify([{ think: thought, say: 'It was the front door.' }])}`;
const agent = await world.api('/v1/agents', { name: 'porter', model: 'rehearsal', system, callback });
await world.api('/v1/sources', { name: 'door', preset: 'bearer', secret, agent: agent.id });
let session, delivery;

await story('lists and a delivery follow what happens by themselves', async () => {
  await world.signIn(page, '/sessions');
  await page.getByText('No session yet').waitFor();
  await stay();
  const sent = await (await ring('door', { type: 'front.door' })).json();
  session = sent.session_id;
  delivery = sent.delivery_id;
  await page.getByRole('row', { name: /front.door/ }).getByText('idle').waitFor();
  assert.ok(await stayed());

  await go('/sources');
  await page.getByRole('row', { name: /^door/ }).waitFor();
  await stay();
  await world.api('/v1/sources', { name: 'window', preset: 'bearer', agent: agent.id });
  await page.getByRole('row', { name: /window/ }).getByText('no secret yet').waitFor();
  assert.ok(await stayed());

  await world.api(`/api/agents/${agent.id}/pause`, {});
  const waits = await (await ring('door', { type: 'back.door' })).json();
  await go(`/deliveries/${waits.delivery_id}`);
  const outcome = page.getByRole('definition').filter({ hasText: 'pending' });
  await outcome.waitFor();
  await stay();
  await world.api(`/api/agents/${agent.id}/resume`, {});
  await page.getByRole('region', { name: 'What came of it' }).getByText('callback').waitFor();
  assert.equal(await outcome.count(), 0);
  assert.ok(await stayed());
  await inspect(page, 'delivery', { looks: 2 });
  quiet(page);
});

await story('what a model thought is folded, in a page that was open and in one that was not', async () => {
  const inLog = page.locator('#log .thinking');
  const check = async (n) => {
    await inLog.nth(n).getByText('thinking', { exact: true }).click();
    await inLog.nth(n).getByText('A bell without a name: <b>nobody</b> rings it twice.').waitFor();
  };
  await go(`/sessions/${session}`);
  assert.ok(await inLog.first().getByText('without a name').isHidden(), 'it is folded');
  await check(0);
  await until('the page listens', () => world.streams() > 0);
  await stay();
  const content = [{ type: 'text', text: 'and now?' }];
  await world.api(`/v1/sessions/${session}/events`, { events: [{ type: 'user.message', content }] });
  await inLog.nth(1).waitFor();
  await check(1);
  assert.ok(await stayed());
  await inspect(page, 'session-thinking');
  const { data } = await world.api(`/v1/sessions/${session}/events?limit=100`);
  const events = data.filter((it) => it.type === 'agent.thinking');
  assert.ok(events.length === 2 && !JSON.stringify(events).includes('bell'), 'the API says only that it did');
  const markdown = await page.evaluate((place) => fetch(place).then((it) => it.text()), `/sessions/${session}/transcript.md`);
  assert.ok(markdown.includes('> A **bell** without a name'));
  quiet(page);
});

await story('beside a transcript is the way from the delivery to the callback, as it goes on', async () => {
  const way = page.getByRole('region', { name: 'From delivery to callback' });
  await go(`/sessions/${session}`);
  const steps = () => way.locator('ol ol > li').allInnerTexts();
  await until('the callbacks are sent', async () => (await steps()).filter((it) => it.includes('sent')).length === 2);
  const words = (await steps()).map((it) => it.replace(/\s+/g, ' '));
  const [first] = [words.findIndex((it) => it.includes('front.door'))];
  assert.ok(/succeeded front\.door from door/.test(words[first]), words.join('\n'));
  assert.ok(/began a turn/.test(words[first + 1]) && /done after/.test(words[first + 2]), words.join('\n'));
  assert.ok(/callback/.test(words[first + 3]), words.join('\n'));
  await stay();
  answer = 410;
  const content = [{ type: 'text', text: 'once more' }];
  await world.api(`/v1/sessions/${session}/events`, { events: [{ type: 'user.message', content }] });
  await way.getByText('given up').waitFor();
  answer = 200;
  assert.ok(await stayed());
  await inspect(page, 'session-way', { looks: 2 });
  await way.getByRole('button', { name: 'Send again' }).click();
  await page.waitForURL(/again/);
  await until('it is sent', async () => (await steps()).every((it) => !it.includes('given up')));
  await page.getByRole('link', { name: 'All deliveries of this session' }).click();
  await page.getByRole('row', { name: /front.door/ }).waitFor();
  assert.equal(await page.getByRole('table').getByRole('row').count(), 2);
  quiet(page);
});

await story('a sender whose every request is refused needs somebody', async () => {
  const trouble = page.getByRole('region', { name: /^Sources that fail/ });
  await go('/needs');
  await trouble.getByText('window has no secret yet').waitFor();
  await stay();
  for (let n = 0; n < 2; n += 1) assert.equal((await ring('door', {}, 'wrong')).status, 401);
  await go('/sources/door');
  const refused = page.getByRole('region', { name: 'Refused requests' }).getByRole('listitem');
  await until('they are written down', async () => (await refused.count()) === 2);
  await stay();
  await ring('door', {}, 'wrong');
  await until('the list follows', async () => (await refused.count()) === 3);
  assert.ok(await stayed());
  await go('/needs');
  await trouble.getByText(/door refused the last 3 requests/).waitFor();
  await inspect(page, 'needs', { looks: 2 });
  assert.equal((await ring('door', { type: 'front.door' })).status, 202);
  await until('one that is let in settles it', async () => (
    (await trouble.getByText(/door refused/).count()) === 0
  ));
  quiet(page);
});

await story('a search goes further back by itself until it finds something', async () => {
  await world.api(`/api/agents/${agent.id}/pause`, {});
  const its = { 'webhook-id': 'msg_Needle7' };
  const needle = await (await ring('door', { type: 'needle', words: 'a thimble in the hay' }, secret, its)).json();
  const hay = Array.from({ length: 2_100 }, (_, n) => n);
  await Promise.all(Array.from({ length: 32 }, async () => {
    for (let n = hay.pop(); n !== undefined; n = hay.pop()) {
      assert.equal((await ring('door', { type: 'hay', n })).status, 202);
    }
  }));
  const still = await world.page({ javaScriptEnabled: false });
  await world.signIn(still, '/deliveries?q=thimble');
  await still.getByText('Nothing yet').waitFor();
  const further = still.getByRole('link', { name: 'Look further back' });
  for (let n = 0; n < 2; n += 1) await further.click();
  await still.getByRole('row', { name: /needle/ }).waitFor();
  // What it says meanwhile.
  const isFurther = (url) => url.searchParams.has('part') && url.searchParams.has('page');
  await page.route(isFurther, () => {});
  await go('/deliveries?q=thimble');
  await page.getByText('Nothing yet').waitFor();
  await inspect(page, 'deliveries-further', { looks: 2 });
  await page.unroute(isFurther);
  await go('/deliveries?q=thimble');
  await page.locator(`[id="${needle.delivery_id}"]`).waitFor();
  await go('/deliveries?q=nothing+of+the+sort');
  await page.getByText('Nothing fits.').waitFor();
  // What is known by its whole id, ours or the sender's, needs no looking for.
  for (const id of [needle.delivery_id, 'msg_Needle7', 'webhook-id:msg_Needle7']) {
    await still.goto(`${world.base}/deliveries?q=${id}`);
    assert.equal(await still.getByRole('table').getByRole('row').count(), 2, id);
  }
  quiet(still);
  await still.context().close();
  // A session with many that wait shows some of them and says how many more there are.
  await world.api('/v1/sources', { name: 'crowd', preset: 'bearer', secret, agent: agent.id, target: { key: 'one' } });
  let crowd;
  for (let n = 0; n < 14; n += 1) crowd = (await (await ring('crowd', { type: 'crowd', n })).json()).session_id;
  await go(`/sessions/${crowd}`);
  await page.getByText('and 4 more', { exact: true }).waitFor();
  await inspect(page, 'session-crowd', { looks: 2 });
  quiet(page);
});

receiver.close();
await suite.close();
