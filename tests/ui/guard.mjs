// Signing in, and that nothing but a form of ours changes anything: every form of every page is sent
// without its token, with that of somebody else, by another site, and by whoever may only read.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { distinct, explore, postRoutes, send } from './forms.mjs';
import { SETTINGS, furnish, state } from './house.mjs';
import { Suite } from './suite.mjs';
import { KEY } from './world.mjs';

const suite = await Suite.open('guard', SETTINGS);
const { world, story, inspect, quiet } = suite;

// What is for everybody: none of it changes anything but the visitor's own browser.
const FOR_ALL = ['/sign-in', '/sign-out', '/theme'];

const routes = postRoutes();
const page = await world.page();
let key, places, acts;

const go = (place, at = page) => at.goto(world.base + place);
const tokenOf = (at) => at.locator('input[name="csrf"]').first().getAttribute('value');

async function signIn(at, key) {
  await at.getByLabel('API key').fill(key);
  await at.getByRole('button', { name: 'Sign in' }).click();
}

// Whether anything is otherwise than before is what counts; a status may be wrong.
async function changesNothing(tell) {
  const before = await state(world);
  await tell();
  assert.deepEqual(await state(world), before);
}

async function allRefused(at, csrf, some = acts) {
  const answers = [];
  for (const act of some) answers.push([act.route, await send(at, act, csrf)]);
  assert.deepEqual(answers.filter(([, status]) => status !== 403), []);
  quiet(at, /status of 403/);
}

await story('there is one of everything', async () => {
  ({ key } = await furnish(world));
});

await story('every form is found, and every route has one', async () => {
  await world.signIn(page, '/');
  const found = await explore(page, world.base, ['/sign-in'], { quiet });
  places = found.places;
  acts = distinct(routes, found.sends);
  console.log(`      ${places.length} pages, ${found.sends.length} buttons of forms, ${acts.length} of them distinct, ${routes.length} routes`);
  const seen = new Set(acts.map((it) => it.route));
  assert.deepEqual(routes.filter((it) => !seen.has(it)), []);
  assert.deepEqual(acts.filter((it) => !it.fields.some(([name]) => name === 'csrf')), [], 'each has its token');
});

await story('a form without its token, or with that of somebody else, changes nothing', async () => {
  const other = await world.page();
  await world.signIn(other);
  const theirs = await tokenOf(other);
  await go('/agents');
  assert.notEqual(theirs, await tokenOf(page));
  await changesNothing(async () => {
    for (const csrf of [undefined, '', theirs]) await allRefused(page, csrf);
  });
  await go('/agents');
  await page.getByRole('heading', { name: 'Agents' }).waitFor();
  quiet(page);
  quiet(other);
  await other.context().close();
});

await story('a form of another site changes nothing, whatever it brings', async () => {
  let offer = '';
  const site = http.createServer((_, response) => {
    response.setHeader('content-type', 'text/html');
    response.end(offer);
  }).listen(0, '127.0.0.1');
  await once(site, 'listening');
  const { port } = site.address();
  await go('/agents');
  const csrf = await tokenOf(page);
  const wanted = ['/vaults', '/keys', '/agents/{id}/pause', '/deployments/{id}/run', '/sessions/{id}/answer', '/files', '/sign-out'];
  const some = wanted.map((it) => acts.find((act) => act.route === it));
  const other = await world.beside(page);
  const quoted = (text) => text.replace(/&/g, '&amp;').replace(/"/g, '&quot;').replace(/</g, '&lt;');
  await changesNothing(async () => {
    for (const { place, type, fields } of some) {
      const inputs = fields.map(([name, value]) => (
        `<input type="hidden" name="${name}" value="${quoted(name === 'csrf' ? csrf : value ?? '')}">`
      ));
      offer = `<form method="post" enctype="${type}" action="${world.base}${place}">${inputs.join('')}<button>Win</button></form>`;
      // To the browser, a name and an address are two sites; two ports are one site, and two origins.
      await other.goto(`http://localhost:${port}/`);
      await other.getByRole('button').click();
      await other.waitForURL(`${world.base}/sign-in`);
      await other.goto(`http://127.0.0.1:${port}/`);
      await other.getByRole('button').click();
      await other.getByText('sent by a page of another site').waitFor();
      // And what a script sends without a look at the answer.
      for (const host of ['localhost', '127.0.0.1']) {
        await other.goto(`http://${host}:${port}/`);
        await other.evaluate((address) => {
          const body = new URLSearchParams(new FormData(document.querySelector('form')));
          return fetch(address, { method: 'POST', mode: 'no-cors', credentials: 'include', body });
        }, world.base + place);
      }
    }
  });
  quiet(other, /status of 403/);
  await other.close();
  await go('/agents');
  await page.getByRole('heading', { name: 'Agents' }).waitFor();
  quiet(page);
  site.closeAllConnections();
  site.close();
});

await story('a key that may only read sees every page and nothing to change', async () => {
  const looker = await world.page();
  await go('/', looker);
  await signIn(looker, key);
  await looker.getByText('read only').first().waitFor();
  const check = ({ place, isLinked, status, sends }) => {
    assert.ok(status === 200 || (!isLinked && status === 403), `${place}: ${status}`);
    const more = sends.filter((it) => !FOR_ALL.includes(it.place));
    assert.deepEqual(more, [], place);
  };
  const found = await explore(looker, world.base, places, { quiet, check });
  console.log(`      ${found.places.length} pages`);
  await go('/agents', looker);
  const csrf = await tokenOf(looker);
  const some = acts.filter((it) => !FOR_ALL.includes(it.route));
  assert.equal(new Set(some.map((it) => it.route)).size, routes.length - FOR_ALL.length);
  await changesNothing(() => allRefused(looker, csrf, some));
  // The light is the visitor's own.
  assert.equal(await send(looker, acts.find((it) => it.route === '/theme'), csrf), 303);
  quiet(looker);
  await looker.context().close();
});

await story('whoever is not signed in comes back to what was asked for', async () => {
  const place = '/deliveries?status=held';
  const visitor = await world.page();
  await world.signIn(visitor, '/needs');
  const [cookie] = (await visitor.context().cookies()).filter((it) => it.path === '/');
  // The page that is open notices by itself.
  await visitor.context().clearCookies();
  await visitor.waitForURL('**/sign-in?next=%2Fneeds');
  quiet(visitor, /status of 401/);
  for (const lost of [undefined, 'made-up']) {
    await visitor.goto('about:blank');
    await visitor.context().clearCookies();
    if (lost) await visitor.context().addCookies([{ ...cookie, value: lost }]);
    await go(place, visitor);
    await visitor.waitForURL(`**/sign-in?next=${encodeURIComponent(place)}`);
    await signIn(visitor, KEY);
    await visitor.waitForURL(world.base + place);
    await visitor.getByRole('heading', { level: 1, name: 'Deliveries' }).waitFor();
  }
  // A key that is revoked ends what it opened.
  const made = await world.api('/v1/api_keys', { name: 'brief', scopes: ['read'] });
  await visitor.goto('about:blank');
  await visitor.context().clearCookies();
  await go(place, visitor);
  await signIn(visitor, made.key);
  await visitor.waitForURL(world.base + place);
  await world.api(`/v1/api_keys/${made.id}/revoke`, {});
  await go('/sources', visitor);
  await visitor.waitForURL('**/sign-in?next=%2Fsources');
  // Nobody is led to another site.
  for (const next of ['https://evil.example/', '//evil.example/', '/\\evil.example/']) {
    await go(`/sign-in?next=${encodeURIComponent(next)}`, visitor);
    await signIn(visitor, KEY);
    await visitor.waitForURL(`${world.base}/`);
  }
  quiet(visitor);
  await visitor.context().close();
});

await story('the form for signing in has a token of its own', async () => {
  const [mine, theirs] = [await world.page(), await world.page()];
  for (const it of [mine, theirs]) await go('/sign-in', it);
  const act = { place: '/sign-in', fields: [['key', KEY], ['next', '/']] };
  for (const csrf of [undefined, await tokenOf(theirs)]) {
    assert.equal(await send(mine, act, csrf), 403);
  }
  assert.ok((await mine.context().cookies()).every((it) => it.path === '/sign-in'), 'nobody is signed in');
  assert.equal(await send(mine, act, await tokenOf(mine)), 303);
  quiet(mine, /status of 403/);
  quiet(theirs);
  for (const it of [mine, theirs]) await it.context().close();
});

await story('a form that lay open while somebody signed in again says what to do', async () => {
  const visitor = await world.page();
  await world.signIn(visitor, '/keys');
  const beside = await world.beside(visitor);
  await go('/sign-in', beside);
  await signIn(beside, KEY);
  await beside.waitForURL(`${world.base}/`);
  await changesNothing(async () => {
    await visitor.locator('summary', { hasText: 'New key' }).click();
    await visitor.getByLabel('Name').fill('too late');
    await visitor.getByRole('button', { name: 'Make the key' }).click();
    await visitor.getByText('Go back, reload the page and try once more').waitFor();
  });
  await inspect(visitor, 'out-of-date');
  quiet(visitor, /status of 403/);
  quiet(beside);
  await visitor.context().close();
});

await story('signing out ends it, here and on the server, and the way back shows nothing', async () => {
  const visitor = await world.page();
  await world.signIn(visitor, '/deliveries');
  await go('/agents', visitor);
  const cookies = await visitor.context().cookies();
  await visitor.getByRole('button', { name: 'Sign out' }).click();
  await visitor.waitForURL('**/sign-in');
  for (const place of ['/agents', '/deliveries']) {
    await visitor.goBack();
    await visitor.waitForURL(`**/sign-in?next=${encodeURIComponent(place)}`);
    assert.ok(await visitor.getByLabel('API key').isVisible());
    assert.equal(await visitor.getByRole('navigation').count(), 0);
  }
  await visitor.context().addCookies(cookies);
  await go('/agents', visitor);
  await visitor.waitForURL('**/sign-in?next=%2Fagents');
  quiet(visitor);
  await visitor.context().close();
  await go('/agents');
  await page.getByRole('heading', { name: 'Agents' }).waitFor();
  quiet(page);
});

await story('with its own token every form gets through', async () => {
  // What takes something away comes last, and leaving comes after all.
  const turn = ({ route }) => (route === '/sign-out' ? 2 : Number(/archive|delete|remove|revoke/.test(route)));
  await go('/agents');
  const [before, answers] = [await state(world), []];
  const some = acts.filter((it) => it.route !== '/sign-in');
  for (const act of some.sort((one, other) => turn(one) - turn(other))) {
    answers.push([act.route, await send(page, act, act.fields.find(([name]) => name === 'csrf')[1])]);
  }
  assert.deepEqual(answers.filter(([, status]) => [0, 403, 500].includes(status)), []);
  assert.notDeepEqual(await state(world), before, 'and would have been seen to');
  await page.goto('about:blank');
  quiet(page, /status of 4\d\d/);
});

await story('too many wrong keys, and the page says how long to wait', async () => {
  const [here, guesser] = [await world.page(), await world.page()];
  await world.signIn(here);
  await go('/sign-in', guesser);
  const answer = async (key) => {
    const [response] = await Promise.all([
      guesser.waitForResponse((it) => it.request().method() === 'POST'), signIn(guesser, key),
    ]);
    return response;
  };
  let last;
  for (let n = 0; n < 12 && last?.status() !== 429; n += 1) {
    if (last) assert.equal(last.status(), 401);
    last = await answer(`wrong ${n}`);
  }
  assert.equal(last.status(), 429);
  assert.equal(last.headers()['retry-after'], '60');
  await guesser.getByRole('alert').getByText(/^Too many wrong keys were tried.*a minute/).waitFor();
  await inspect(guesser, 'too-many');
  // The right key has to wait as well, or it could be told from a wrong one.
  assert.equal((await answer(KEY)).status(), 429);
  await go('/sign-in', guesser);
  quiet(guesser, /status of 401/, /status of 429/);
  // Whoever is signed in stays so, and a browser that was here before gets in again.
  await go('/needs', here);
  await here.getByRole('button', { name: 'Sign out' }).click();
  await here.waitForURL('**/sign-in');
  await world.signIn(here);
  await here.getByRole('heading', { name: 'Agents' }).waitFor();
  quiet(here);
});

await suite.close();
