// The stories of the pages, one after the other on one server.

import assert from 'node:assert/strict';
import http from 'node:http';
import { Suite } from './suite.mjs';
import { KEY, until } from './world.mjs';

const suite = await Suite.open('pages');
const { world, story, inspect, quiet } = suite;

// Ids and keys of a transcript's entries, in the order of the page.
function entries(page) {
  return page.locator('#log > .entry:not(#draft)').evaluateAll(
    (all) => all.map((it) => `${it.dataset.key} ${it.id}`),
  );
}

const page = await world.page();
let token, endpoint, session;

await story('signing in', async () => {
  await page.goto(world.base);
  await page.waitForURL('**/sign-in');
  await inspect(page, 'sign-in');
  await page.getByLabel('API key').fill('wrong');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').getByText('not a key of this server').waitFor();
  quiet(page, /status of 401/);
  await world.signIn(page);
  await page.getByRole('heading', { name: 'Agents' }).waitFor();
  const cookies = await page.context().cookies();
  const cookie = cookies.find((it) => it.path === '/');
  assert.ok(cookie.httpOnly && cookie.sameSite === 'Strict');
  assert.equal(await page.evaluate(() => document.cookie), '');
  quiet(page);
});

await story('the webhook of an agent', async () => {
  const agents = await world.api('/v1/agents');
  await inspect(page, 'agents');
  const button = page.getByRole('button', { name: 'Webhook of default' });
  await button.focus();
  await page.keyboard.press('Enter');
  const dialog = page.getByRole('dialog', { name: 'Webhook of default' });
  await dialog.waitFor();
  await inspect(page, 'webhook-empty', { looks: 2 });
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'hidden' });
  assert.ok(await button.evaluate((it) => it === document.activeElement), 'focus comes back');

  await button.click();
  await dialog.waitFor();
  endpoint = await dialog.locator('#endpoint-url').textContent();
  assert.equal(endpoint, `${world.direct}/api/agents/${agents.data[0].id}/webhook`);
  await dialog.getByRole('button', { name: 'Copy the endpoint' }).click();
  await until('the endpoint is copied', async () => (
    await page.evaluate(() => navigator.clipboard.readText()) === endpoint
  ));
  await dialog.getByRole('button', { name: 'Generate a token' }).click();
  token = await dialog.locator('#made-token').textContent();
  assert.match(token, /^bps_.{40,}/);
  await dialog.getByText('the only time you see it').waitFor();
  await inspect(page, 'webhook-made');
  quiet(page);
});

await story('a delivery appears by itself and leads to its session', async () => {
  const response = await fetch(endpoint, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      event: 'ticket.created',
      ticket: { id: 42, subject: '<script>document.title = "taken"</script>', priority: 'high' },
    }),
  });
  assert.equal(response.status, 202);
  session = (await response.json()).session_id;
  const dialog = page.getByRole('dialog', { name: 'Webhook of default' });
  await dialog.getByText('ticket.created', { exact: true }).waitFor();
  await dialog.getByText('succeeded').waitFor();
  await inspect(page, 'webhook-deliveries', { looks: 2 });
  assert.equal(await dialog.locator('#made-token').textContent(), token, 'it is not swept away');
  await dialog.getByRole('button', { name: 'Close' }).click();
  await dialog.waitFor({ state: 'hidden' });
  assert.ok(!(await page.content()).includes(token), 'and gone with the dialog');
  await page.getByRole('row', { name: /default/ }).getByRole('cell').nth(3).getByRole('link').click();
  await page.waitForURL(`**/sessions/${session}`);
  await page.getByText('Rehearsal: no AI was involved').waitFor();
  assert.equal(await page.locator('pre.data').first().textContent().then((it) => it.includes('<script>')), true);
  assert.notEqual(await page.title(), 'taken');
  await inspect(page, 'session');
  quiet(page);
});

await story('a transcript fills while it is looked at', async () => {
  await page.evaluate(() => {
    window.loadedOnce = true;
    window.drafts = 0;
    const look = () => {
      const draft = document.getElementById('draft');
      if (draft && !draft.hidden && draft.textContent.trim()) window.drafts += 1;
    };
    new MutationObserver(look).observe(document.getElementById('log'), { childList: true, subtree: true });
  });
  await until('the page listens', () => world.streams() > 0);
  const text = 'The bell in the dining room was rung. '.repeat(20);
  const content = Array.from({ length: 5 }, () => ({ type: 'text', text }));
  await world.api(`/v1/sessions/${session}/events`, { events: [{ type: 'user.message', content }] });
  await page.locator('.entry.person').getByText('dining room').first().waitFor();
  await page.locator('.entry.agent:not(#draft)').nth(1).waitFor();
  await page.locator('#head[data-status="idle"]').waitFor();
  assert.ok(await page.evaluate(() => window.drafts > 0), 'its words came as they were written');
  assert.ok(await page.locator('#draft').isHidden());
  assert.ok(await page.evaluate(() => window.loadedOnce), 'without a reload');
  quiet(page);
});

await story('a cut stream goes on without gap or repetition', async () => {
  const before = await entries(page);
  world.cut();
  await page.getByText('The connection was cut').waitFor();
  for (const text of ['while nobody', 'was looking']) {
    const event = { type: 'user.message', content: [{ type: 'text', text }] };
    await world.api(`/v1/sessions/${session}/events`, { events: [event] });
    await until('it is answered', async () => (
      (await world.api(`/v1/sessions/${session}`)).status === 'idle'
    ));
  }
  assert.deepEqual(await entries(page), before);
  world.mend();
  await page.locator('.entry.person').getByText('was looking').waitFor();
  await page.locator('#connection').waitFor({ state: 'hidden' });
  const event = { type: 'user.message', content: [{ type: 'text', text: 'and again' }] };
  await world.api(`/v1/sessions/${session}/events`, { events: [event] });
  await page.locator('.entry.agent:not(#draft)').nth(4).waitFor();
  await page.locator('#head[data-status="idle"]').waitFor();

  const still = await world.page({ javaScriptEnabled: false });
  await world.signIn(still, `/sessions/${session}`);
  const wanted = await entries(still);
  assert.equal(new Set(wanted).size, wanted.length);
  assert.deepEqual(await entries(page), wanted);
  const texts = (it) => it.locator('#log .said').evaluateAll((all) => all.map((said) => said.textContent.replace(/\s+/g, ' ').trim()));
  assert.deepEqual(await texts(page), await texts(still));
  assert.ok(await page.evaluate(() => window.loadedOnce), 'without a reload');
  // What is beside the transcript is looked up every few seconds, and may be while nothing goes through.
  quiet(page, /htmx:sse:error/, /ERR_/, /Failed to fetch/);
  quiet(still);
  await still.context().close();
});

await story('without scripts everything can be read and done', async () => {
  const still = await world.page({ javaScriptEnabled: false });
  await world.signIn(still);
  await still.getByRole('button', { name: 'Webhook of default' }).click();
  await still.getByRole('heading', { name: 'Webhook of default' }).waitFor();
  await still.getByLabel('stops working').selectOption('3600');
  await still.getByLabel('Token that the sender gave you').fill('pasted-by-hand-1');
  await still.getByRole('button', { name: 'Store' }).click();
  await still.getByText('The token is stored.').waitFor();
  await still.getByRole('link', { name: 'Sessions' }).first().click();
  await still.getByRole('link', { name: /ticket.created/ }).click();
  await still.getByText('Rehearsal: no AI was involved').first().waitFor();
  await still.getByRole('button', { name: 'Sign out' }).click();
  await still.waitForURL('**/sign-in');
  quiet(still);
  await still.context().close();
  for (const it of [token, 'pasted-by-hand-1']) {
    const headers = { authorization: `Bearer ${it}` };
    const response = await fetch(endpoint, { method: 'POST', headers, body: '{}' });
    assert.equal(response.status, 202, 'both tokens are good for an hour');
  }
});

await story('a link on another site leads to the page', async () => {
  const site = http.createServer((_, response) => {
    response.setHeader('content-type', 'text/html');
    response.end(`<a href="${world.base}/sessions/${session}">the session</a>`);
  });
  await new Promise((resolve) => { site.listen(0, '127.0.0.1', resolve); });
  const other = await world.beside(page);
  await other.goto(`http://localhost:${site.address().port}/`);
  await other.getByRole('link').click();
  await other.waitForURL(`**/sessions/${session}`);
  await other.getByRole('heading', { level: 1 }).getByText('ticket.created').waitFor();
  quiet(other);
  await other.close();
  site.closeAllConnections();
  site.close();
});

await story('lists, pages of their own and errors', async () => {
  await page.goto(`${world.base}/sessions`);
  await page.getByRole('link', { name: /ticket.created/ }).waitFor();
  await inspect(page, 'sessions');
  await page.goto(`${world.base}/agents`);
  const row = page.getByRole('row', { name: /default/ });
  const href = await row.locator('form[method=get]').getAttribute('action');
  await page.goto(world.base + href);
  await inspect(page, 'webhook-page', { looks: 2 });
  quiet(page);
  await page.goto(`${world.base}/nothing`);
  await page.getByText('no page at this address').waitFor();
  await inspect(page, 'nothing', { looks: 2 });
  quiet(page, /status of 404/);
});

await story('a key that may only read sees no way to change anything', async () => {
  const { key } = await world.api('/v1/api_keys', { name: 'looker', scopes: ['read'] });
  const looker = await world.page();
  await looker.goto(world.base);
  await looker.getByLabel('API key').fill(key);
  await looker.keyboard.press('Enter');
  await looker.getByText('read only').waitFor();
  await looker.goto(`${world.base}/agents`);
  await looker.getByRole('button', { name: 'Webhook of default' }).click();
  await looker.getByRole('dialog').getByText('version 2').waitFor();
  assert.equal(await looker.getByRole('button', { name: /Generate|Store/ }).count(), 0);
  quiet(looker);
  await looker.context().close();
});

await story('many bells, long names, and things that go wrong', async () => {
  await world.api('/v1/agents', {
    name: 'night porter of the house with the very long name that does not end',
    model: 'claude-of-a-provider-that-is-not-set-up',
    description: 'Looks after everything that happens after ten in the evening, and writes it down.',
  });
  const key = await world.api('/v1/api_keys', { name: 'a key with a rather long name of its own', scopes: ['admin'] });
  for (const name of ['stripe', 'alertmanager-production-eu-west-1', 'a'.repeat(64)]) {
    await world.api('/v1/sources', { name, preset: 'bearer', secret: 'a-secret-that-is-long' });
  }
  const send = (body) => fetch(`${world.direct}/api/webhook/stripe`, {
    method: 'POST',
    headers: { authorization: 'Bearer a-secret-that-is-long', 'content-type': 'application/json' },
    body: JSON.stringify(body),
  }).then((response) => response.json());
  const items = Array.from({ length: 60 }, (_, n) => ({ n, words: 'x'.repeat(n) }));
  const sent = await send({ type: 'invoice.paid', data: { items, path: '/'.repeat(300) } });
  await page.goto(`${world.base}/sessions/${sent.session_id}`);
  await page.locator('#head[data-status="idle"]').waitFor();
  await page.locator('.tool summary').click();
  await inspect(page, 'session-tool', { looks: 2 });
  const agents = await world.api('/v1/agents');
  const agent = agents.data.find((it) => it.name.startsWith('night'));
  const environment = (await world.api('/v1/environments')).data[0].id;
  const made = await world.api('/v1/sessions', { agent: agent.id, environment_id: environment });
  const content = [{ type: 'text', text: 'Does anybody answer?' }];
  await world.api(`/v1/sessions/${made.id}/events`, { events: [{ type: 'user.message', content }] });
  await page.goto(`${world.base}/sessions/${made.id}`);
  await page.locator('.entry.error').first().waitFor();
  await inspect(page, 'session-error', { looks: 2 });
  await page.goto(`${world.base}/agents`);
  await inspect(page, 'agents-many', { looks: 2 });
  await world.api('/v1/sources', { name: 'code', preset: 'github', secret: 's', filter: 'event_type != "x" && body.n > 0' });
  for (const n of [0, 1, 1, 'many']) {
    await world.api('/v1/sources/code/test', { body: { n, words: 'x'.repeat(2000) } });
  }
  await page.goto(world.base);
  await page.getByRole('link', { name: /^code/ }).click();
  await page.waitForURL('**/sources/code');
  await page.getByText('possible replay').waitFor();
  await page.getByText('does not want it').waitFor();
  await inspect(page, 'source');
  quiet(page);
  // A page that is open would notice, and go to the sign-in by itself.
  await page.goto('about:blank');
  await page.context().clearCookies();
  await page.goto(world.base);
  await page.getByLabel('API key').fill(key.key);
  await page.keyboard.press('Enter');
  await page.getByText('rather long name').waitFor();
  await page.goto(`${world.base}/agents`);
  await inspect(page, 'agents-long-key', { looks: 2 });
});

await story('what was kept back is released with a button, and replayed', async () => {
  await page.goto(`${world.base}/sources/code`);
  const rows = page.locator('.deliveries li');
  const n = await rows.count();
  await page.getByRole('button', { name: /^Release/ }).last().click();
  await page.getByRole('status').getByText('It was replayed').waitFor();
  await until('the new one is listed', async () => (await rows.count()) === n + 1);
  await rows.first().getByText('Replay of').waitFor();
  await rows.getByText('replayed', { exact: true }).waitFor();
  // The list is asked for again meanwhile, and what was said stays.
  await rows.first().getByText('succeeded').waitFor();
  await page.getByRole('status').getByText('It was replayed').waitFor();
  assert.ok(!page.url().includes('csrf'));
  await inspect(page, 'source-replayed');
  await rows.first().getByRole('button', { name: /^Replay/ }).click();
  await until('another one is listed', async () => (await rows.count()) === n + 2);
  await rows.first().getByRole('link', { name: /^Session/ }).click();
  await page.locator('.origin').getByText('replay', { exact: true }).waitFor();
  await inspect(page, 'session-replayed', { looks: 2 });
  quiet(page);
});

await story('the server stops while pages are open', async () => {
  await page.goto(`${world.base}/sessions/${session}`);
  await until('the page listens', () => world.streams() > 0);
  const started = Date.now();
  world.server.kill('SIGTERM');
  await until('the server has ended', () => world.server.exitCode !== null);
  assert.equal(world.server.exitCode, 0, world.log);
  assert.ok(Date.now() - started < 10_000, 'live pages do not hold it up');
  assert.ok(!world.log.includes(KEY) && !world.log.includes(token), 'the log holds no secret');
});

await suite.close();
