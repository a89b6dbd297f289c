// The management pages, one after the other on a server of their own.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { Suite } from './suite.mjs';
import { until } from './world.mjs';

const suite = await Suite.open('manage');
const { world, story, inspect, quiet } = suite;

// Sends a form past the page, as another site would have to.
function forge(context, place, form, headers = {}) {
  return context.request.post(world.base + place, { form, headers, maxRedirects: 0 });
}

const page = await world.page();
await world.signIn(page);
const go = (place) => page.goto(world.base + place);
const unfold = (text, at = page) => at.locator('summary', { hasText: text }).first().click();
const says = (text) => page.getByRole('status').getByText(text).waitFor();

const EMPTY = ['usage', 'deployments', 'vaults', 'files', 'keys'];

await story('empty pages teach how the first one is made', async () => {
  for (const name of EMPTY) {
    await go(`/${name}`);
    await page.locator('.empty').first().waitFor();
    await inspect(page, `${name}-empty`);
  }
  await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Usage' }).click();
  await page.waitForURL('**/usage');
  assert.equal(await page.getByRole('link', { name: 'Usage' }).getAttribute('aria-current'), 'page');
  quiet(page);
});

let looker;

await story('a key is made, shown once, used and revoked', async () => {
  await go('/keys');
  await unfold('New key');
  await page.getByLabel('Name').fill('looker');
  await page.getByLabel('Scope').selectOption('read');
  await page.getByRole('button', { name: 'Make the key' }).click();
  const key = await page.locator('#made-key').textContent();
  assert.match(key, /^bpk_.{40,}/);
  await page.getByText('the only time you see the key looker').waitFor();
  await inspect(page, 'keys-made');
  await go('/keys');
  assert.ok(!(await page.content()).includes(key), 'and never again');

  await unfold('New key');
  await page.getByLabel('Name').fill('looker');
  await page.getByRole('button', { name: 'Make the key' }).click();
  await page.getByRole('alert').getByText('looker exists').waitFor();
  assert.equal(await page.getByLabel('Name').inputValue(), 'looker', 'what was filled in stays');
  quiet(page, /status of 422/);

  looker = await world.page();
  await looker.goto(`${world.base}/usage`);
  await looker.getByLabel('API key').fill(key);
  await looker.keyboard.press('Enter');
  await looker.waitForURL('**/usage');

  const { id } = await world.api('/v1/api_keys', { name: 'short-lived', scopes: ['admin'] });
  await go('/keys');
  await page.getByRole('link', { name: 'Revoke short-lived' }).click();
  await page.getByRole('heading', { name: 'Revoke the key short-lived?' }).waitFor();
  await inspect(page, 'confirm');
  await page.getByRole('link', { name: 'Leave it as it is' }).click();
  await page.waitForURL('**/keys');
  await go(`/keys/${id}/revoke`);
  await page.getByRole('button', { name: 'Revoke the key' }).click();
  await says('opens nothing any more');
  await page.getByRole('link', { name: 'Show 1 revoked' }).click();
  await page.getByRole('row', { name: /short-lived/ }).getByText('revoked').waitFor();
  quiet(page);
});

await story('vaults: credentials are sealed, rotated and put away', async () => {
  await go('/vaults');
  await unfold('New vault');
  await page.getByLabel('Name', { exact: true }).first().fill('team tools');
  await page.getByRole('button', { name: 'Make the vault' }).click();
  await page.getByRole('heading', { name: 'Vault team tools' }).waitFor();
  await says('It is made.');
  const place = new URL(page.url()).pathname;

  await unfold('Add a credential');
  await page.getByLabel('URL of the MCP server').fill('https://mcp.example.com/mcp');
  await page.getByLabel(/^Value/).fill('sealed-token-1');
  await inspect(page, 'vault-form');
  await page.getByRole('button', { name: 'Seal and store' }).click();
  await says('Nobody sees it again');

  await unfold('Add a credential');
  await page.getByLabel('Kind').selectOption('environment_variable');
  assert.ok(await page.getByLabel('URL of the MCP server').isHidden(), 'of another kind');
  await page.getByLabel('Name of the variable').fill('1 bad');
  await page.getByLabel(/^Value/).fill('sealed-value-2');
  await page.getByRole('button', { name: 'Seal and store' }).click();
  await page.getByRole('alert').getByText('Secret name:').waitFor();
  assert.equal(await page.getByLabel('Name of the variable').inputValue(), '1 bad');
  assert.ok(!(await page.content()).includes('sealed-value-2'), 'a value does not come back');
  await page.getByLabel('Name of the variable').fill('GITHUB_TOKEN');
  await page.getByLabel('Only for these hosts').fill('api.github.com, github.com');
  await page.getByLabel(/^Value/).fill('sealed-value-2');
  await page.getByRole('button', { name: 'Seal and store' }).click();
  await says('Nobody sees it again');
  const row = page.getByRole('row', { name: /GITHUB_TOKEN/ });
  await row.getByText('only for api.github.com, github.com').waitFor();

  await row.locator('summary').click();
  await row.getByLabel('New value').fill('sealed-value-3');
  await row.getByRole('button', { name: 'Store' }).click();
  await says('The new value counts');
  assert.equal(await row.getByRole('cell').nth(3).textContent(), '2', 'a version more');

  await unfold('Add a credential');
  await page.getByLabel('Kind').selectOption('mcp_oauth');
  await page.getByLabel('URL of the MCP server').fill('https://tools.example.com/mcp');
  await page.getByLabel(/^Value/).fill('sealed-access-4');
  await page.getByRole('button', { name: 'Seal and store' }).click();
  await page.getByRole('row', { name: /OAuth/ }).getByText('no refresh token').waitFor();
  await inspect(page, 'vault');

  await row.getByRole('link', { name: /^Archive/ }).click();
  await page.getByRole('button', { name: 'Archive it and erase the value' }).click();
  await says('It is archived.');
  await page.getByRole('link', { name: 'Show archived credentials' }).click();
  await row.getByText('archived').waitFor();
  for (const value of ['sealed-token-1', 'sealed-value-2', 'sealed-value-3', 'sealed-access-4']) {
    assert.ok(!(await page.content()).includes(value));
  }

  await go(place);
  await unfold('Rename, archive or delete');
  await page.getByRole('link', { name: 'Archive the vault' }).click();
  await page.getByRole('heading', { name: 'Archive the vault team tools?' }).waitFor();
  await page.getByRole('button', { name: /^Archive/ }).click();
  await says('It is archived.');
  assert.equal(await page.getByRole('link', { name: 'team tools' }).count(), 0);
  await page.getByRole('link', { name: 'Show archived' }).click();
  await page.getByRole('link', { name: 'team tools' }).click();
  await page.getByText('its values are erased').waitFor();

  await go(`${place}/delete`);
  await page.getByRole('button', { name: 'Delete it for ever' }).click();
  await says('It is deleted.');
  quiet(page, /status of 422/);
});

await story('secrets of the server: made up and shown once, stored and not shown', async () => {
  await go('/vaults');
  await unfold('Set or rotate a secret');
  const form = page.locator('form[action="/secrets"]');
  await form.getByLabel('Name').fill('DEPLOY_TOKEN');
  await form.getByRole('button', { name: 'Let the server make one up' }).click();
  const value = await page.locator('#made-secret').textContent();
  assert.match(value, /^bps_/);
  await inspect(page, 'vaults');
  await go('/vaults');
  assert.ok(!(await page.content()).includes(value));
  await unfold('Set or rotate a secret');
  await form.getByLabel('Name').fill('DEPLOY_TOKEN');
  await form.getByLabel('A value there is now stops working').selectOption('3600');
  await form.getByLabel('Value', { exact: true }).fill('pasted-in');
  await form.getByRole('button', { name: 'Store the value' }).click();
  await says('Nobody sees it again');
  await page.getByRole('row', { name: /DEPLOY_TOKEN/ }).getByText('good until').waitFor();
  await page.getByRole('link', { name: 'Delete DEPLOY_TOKEN' }).click();
  await page.getByRole('button', { name: 'Delete the secret' }).click();
  await says('It is deleted.');
  assert.equal(await page.getByRole('row', { name: /DEPLOY_TOKEN/ }).count(), 0);
  quiet(page);
});

await story('environments: made, changed, archived', async () => {
  await go('/environments');
  await unfold('New environment');
  await page.getByLabel('Name', { exact: true }).fill('workshop');
  await page.getByLabel('Network of its programs').selectOption('limited');
  await page.getByLabel(/^Hosts/).fill('packages.example.com, github.com');
  await page.getByLabel(/^Setup/).fill('echo ready\necho steady');
  await page.getByLabel(/^Variables/).fill('no equals sign');
  await inspect(page, 'environments-form');
  await page.getByRole('button', { name: 'Make the environment' }).click();
  await page.getByRole('alert').getByText('has no =').waitFor();
  await page.getByLabel(/^Variables/).fill('COLOUR=green\nTOKEN=secret:DEPLOY_TOKEN');
  await page.getByRole('button', { name: 'Make the environment' }).click();
  await page.getByRole('heading', { name: 'Environment workshop' }).waitFor();
  await page.getByText('packages.example.com, github.com').first().waitFor();
  const id = page.url().match(/env_\w+/)[0];
  const { config } = await world.api(`/v1/environments/${id}`);
  assert.deepEqual(config.setup, ['echo ready', 'echo steady']);
  assert.deepEqual(config.variables, { COLOUR: 'green', TOKEN: { secret: 'DEPLOY_TOKEN' } });
  assert.deepEqual(config.networking.allowed_hosts, ['packages.example.com', 'github.com']);
  await inspect(page, 'environment');

  await unfold('Change it');
  await page.getByLabel('What it is for').fill('where things are mended');
  await page.getByLabel('Network of its programs').selectOption('none');
  await page.getByLabel(/^Hosts/).fill('');
  await page.getByRole('button', { name: 'Save the change' }).click();
  await says('The change is saved.');
  const changed = await world.api(`/v1/environments/${id}`);
  assert.equal(changed.config.networking.type, 'none');
  assert.equal(changed.description, 'where things are mended');
  assert.deepEqual(changed.config.variables, config.variables, 'the rest stays');
  await go('/environments');
  await inspect(page, 'environments');
  await go(`/environments/${id}/archive`);
  await page.getByRole('button', { name: 'Archive the environment' }).click();
  await says('It is archived.');
  assert.equal(await page.getByRole('row', { name: /workshop/ }).count(), 0);
  quiet(page, /status of 422/);
});

let deployment;

await story('deployments: a schedule in words, run now, paused and going on', async () => {
  await go('/deployments');
  await unfold('New deployment');
  await page.getByLabel('Name', { exact: true }).fill('morning round');
  await page.getByLabel('What each session is told first').fill('Look after the <b>open</b> tickets.');
  await page.getByLabel(/^Schedule/).fill('0 9 * *');
  await page.getByLabel('Time zone of the schedule').fill('Europe/Berlin');
  await page.getByRole('button', { name: 'Make the deployment' }).click();
  await page.getByRole('alert').getByText('has 4 fields').waitFor();
  await page.getByLabel(/^Schedule/).fill('0 9 * * 1-5');
  await inspect(page, 'deployments-form');
  await page.getByRole('button', { name: 'Make the deployment' }).click();
  await page.getByRole('heading', { name: 'morning round' }).waitFor();
  deployment = new URL(page.url()).pathname;
  await page.getByText('every weekday at 09:00, Europe/Berlin').waitFor();
  assert.equal(await page.locator('.upcoming li').count(), 5);
  assert.ok((await page.locator('.upcoming li').allTextContents()).every((it) => it.includes('09:00')));
  await page.getByText('It has not run yet').waitFor();

  await page.getByRole('button', { name: 'Run now' }).click();
  await says('It was started');
  await page.getByRole('row', { name: /by hand/ }).getByText('started').waitFor();
  await inspect(page, 'deployment');
  await page.getByRole('button', { name: 'Pause' }).click();
  await says('It is paused');
  assert.equal(await page.locator('.upcoming li').count(), 0, 'nothing comes');
  await page.getByRole('button', { name: 'Go on' }).click();
  await says('Its schedule goes on.');
  assert.equal(await page.locator('.upcoming li').count(), 5);
  await page.getByRole('row', { name: /by hand/ }).getByRole('link').click();
  await page.waitForURL('**/sessions/sesn_*');
  await page.locator('#head[data-status="idle"]').waitFor();
  await go(deployment);
  await page.getByRole('link', { name: 'Change', exact: true }).click();
  assert.equal(await page.getByLabel('What each session is told first').inputValue(), 'Look after the <b>open</b> tickets.');
  await page.getByLabel('Name', { exact: true }).fill('evening round');
  await page.getByLabel(/^Schedule/).fill('30 18 * *');
  await page.getByRole('button', { name: 'Show the next runs' }).click();
  await page.locator('#wrong').getByText('has 4 fields').waitFor();
  await page.getByLabel(/^Schedule/).fill('30 18 * * 5');
  await page.getByRole('button', { name: 'Show the next runs' }).click();
  await page.getByText('the next 5 runs would be').waitFor();
  assert.ok((await page.locator('.upcoming li').allTextContents()).every((it) => it.includes('18:30')));
  await inspect(page, 'deployment-edit', { looks: 2 });
  assert.equal((await world.api(`/v1${deployment}`)).name, 'morning round', 'nothing is saved yet');
  await page.getByRole('button', { name: 'Save' }).click();
  await says('The change is saved.');
  await page.getByRole('heading', { name: 'evening round' }).waitFor();
  await page.getByText('18:30, Europe/Berlin').first().waitFor();
  await go('/deployments');
  await page.getByRole('row', { name: /evening round/ }).getByText('18:30').waitFor();
  await inspect(page, 'deployments');
  quiet(page, /status of 422/);
});

await story('usage: what the run cost, and a budget that shows what is left', async () => {
  await go('/usage');
  const agents = page.getByRole('table', { name: 'By agent' });
  await agents.getByRole('row', { name: /default/ }).waitFor();
  const cells = await agents.getByRole('row', { name: /default/ }).getByRole('cell').allTextContents();
  assert.ok(Number(cells[3]) >= 1, `model requests: ${cells}`);
  assert.equal(cells[4], '1', `runs: ${cells}`);
  await page.getByRole('table', { name: 'By model' }).getByRole('row', { name: /rehearsal/ }).waitFor();
  const chart = page.getByRole('img', { name: /^Runs by day: 1 in 30 days/ });
  assert.equal(await chart.locator('rect').count(), 30);
  await page.getByRole('link', { name: '7 days' }).click();
  await page.waitForURL('**days=7**');
  assert.equal(await page.getByRole('img', { name: /^Runs by day/ }).locator('rect').count(), 7);
  await page.getByRole('table', { name: 'By model' }).getByRole('link', { name: 'rehearsal' }).click();
  await page.getByRole('heading', { name: 'Usage of rehearsal' }).waitFor();
  await page.getByText('Day by day').click();
  await page.getByRole('table', { name: /Day by day/ }).waitFor();

  await page.getByLabel('Set budgets of').selectOption({ label: 'agent default' });
  await page.getByRole('button', { name: 'Choose' }).click();
  await page.getByRole('heading', { name: 'Budgets of default' }).waitFor();
  await page.getByLabel('Dollars of a turn').fill('0.50');
  await page.getByLabel('Model requests of a day').fill('lots');
  await page.getByRole('button', { name: 'Set the budgets' }).click();
  await page.getByRole('alert').getByText('must be a whole number').waitFor();
  assert.equal(await page.getByLabel('Dollars of a turn').inputValue(), '0.50');
  await page.getByLabel('Model requests of a day').fill('10');
  await inspect(page, 'usage-budget-form');
  await page.getByRole('button', { name: 'Set the budgets' }).click();
  await says('The budgets are set');
  const row = page.getByRole('table', { name: 'Budgets' }).getByRole('row', { name: /default/ });
  await row.getByText('$0.50 a turn').waitFor();
  await row.getByText(/1 model request used/).waitFor();
  await row.getByRole('link', { name: 'Change the budgets of default' }).click();
  assert.equal(await page.getByLabel('Dollars of a turn').inputValue(), '0.50', 'as it is');

  await go('/usage?edit=all');
  await page.getByLabel('Dollars of a day').fill('20');
  assert.equal(await page.getByLabel('Dollars of a turn').count(), 0);
  await page.getByRole('button', { name: 'Set the budgets' }).click();
  await page.getByRole('row', { name: /everything/ }).getByText('$20.00 a day').waitFor();
  const all = await world.api('/v1/budgets/all');
  assert.equal(all.day.cost_usd, '20.000000');
  await inspect(page, 'usage');
  quiet(page, /status of 422/);
});

await story('a budget of everything stops work', async () => {
  await world.api('/v1/budgets/all', { day: { model_calls: 0 } });
  await go(deployment);
  await page.getByRole('button', { name: 'Run now' }).click();
  await says('It was started');
  await page.getByRole('row', { name: /by hand/ }).first().getByRole('link').click();
  await page.getByText(/budget of the server for today is used up/).first().waitFor();
  await world.api('/v1/budgets/all', {});
  quiet(page);
});

await story('files: uploaded, downloaded as they were, deleted', async () => {
  const file = path.join(world.place, 'report <1>.csv');
  fs.writeFileSync(file, 'a,b\n1,2\n');
  await go('/files');
  await unfold('Upload a file');
  await page.getByLabel(/^File/).setInputFiles(file);
  await page.getByRole('button', { name: 'Upload it' }).click();
  await says('The file is here.');
  await inspect(page, 'files');
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('link', { name: /^Download report/ }).click(),
  ]);
  assert.equal(fs.readFileSync(await download.path(), 'utf8'), 'a,b\n1,2\n');
  const id = (await world.api('/v1/files')).data[0].id;
  const raw = await page.context().request.get(`${world.base}/files/${id}/content`);
  assert.match(raw.headers()['content-security-policy'], /sandbox/);
  assert.match(raw.headers()['content-disposition'], /^attachment/);
  await page.getByRole('link', { name: /^Delete report/ }).click();
  await page.getByRole('button', { name: 'Delete it for ever' }).click();
  await says('It is deleted.');
  await page.locator('.empty').waitFor();
  quiet(page);
});

await story('the audit log says who did what, and is filtered', async () => {
  await go('/audit');
  await page.getByRole('row', { name: /file.delete/ }).waitFor();
  await inspect(page, 'audit');
  await page.getByLabel('What').selectOption('vault.create');
  await page.getByRole('button', { name: 'Show' }).click();
  await page.waitForURL('**action=vault.create**');
  const actions = await page.locator('tbody td:nth-child(3)').allTextContents();
  assert.deepEqual(actions, ['vault.create']);
  await go('/audit?actor=nobody');
  await page.getByText('Nothing of this kind').waitFor();
  for (let n = 0; n < 55; n += 1) await world.api('/v1/vaults', { display_name: `v${n}` });
  await go('/audit?action=vault.create');
  assert.equal(await page.locator('tbody tr').count(), 50);
  await page.getByRole('link', { name: 'Older changes' }).click();
  await until('the second page', async () => (await page.locator('tbody tr').count()) === 6);
  quiet(page);
});

await story('settings say what counts and where it came from, and no secret', async () => {
  await go('/settings');
  const table = page.getByRole('table', { name: 'What is set here' });
  const row = (key) => table.getByRole('row').filter({ has: page.getByText(key, { exact: true }) });
  await row('limits.free_disk_bytes_min').getByText('environment').waitFor();
  await row('data_dir').getByText('flag').waitFor();
  await row('BELLPULL_MASTER_KEY').getByText('set', { exact: true }).waitFor();
  assert.ok(!(await page.content()).includes('the-master-key-of'));
  await page.getByText('SQLite commits').waitFor();
  await unfold('worker');
  await page.getByRole('table', { name: 'worker' }).getByText('default').first().waitFor();
  await inspect(page, 'settings');
  quiet(page);
});

await story('a key that may only read changes nothing and sees no button for it', async () => {
  const vault = (await world.api('/v1/vaults')).data[0].id;
  const environment = (await world.api('/v1/environments')).data[0].id;
  const places = ['/usage', '/usage?edit=all', '/deployments', deployment, '/environments',
    `/environments/${environment}`, '/vaults', `/vaults/${vault}`, '/files', '/keys', '/audit', '/settings'];
  for (const place of places) {
    await looker.goto(world.base + place);
    await looker.getByRole('heading', { level: 1 }).waitFor();
    const forms = looker.locator('main form[method="post"]');
    assert.equal(await forms.count(), 0, place);
    assert.equal(await looker.locator('main').getByRole('link', { name: /^(Delete|Archive|Revoke|Change)/ }).count(), 0, place);
  }
  const csrf = await looker.locator('input[name="csrf"]').first().getAttribute('value');
  const forms = [
    ['/keys', { name: 'mine', scope: 'admin' }], ['/vaults', { display_name: 'mine' }],
    ['/secrets', { name: 'MINE', value: 'x' }], [`${deployment}/run`, {}], [`${deployment}/pause`, {}],
    ['/environments', { name: 'mine' }], ['/usage/budgets', { edit: 'all' }], [`/vaults/${vault}/delete`, {}],
  ];
  for (const [place, form] of forms) {
    const response = await forge(looker.context(), place, { csrf, ...form });
    assert.equal(response.status(), 403, place);
  }
  const upload = await looker.context().request.post(`${world.base}/files`, {
    multipart: { csrf, file: { name: 'x', mimeType: 'text/plain', buffer: Buffer.from('x') } },
  });
  assert.equal(upload.status(), 403);
  assert.equal((await world.api('/v1/files')).data.length, 0);
  quiet(looker);
});

await story('a form of another site, or without its token, changes nothing', async () => {
  const n = (await world.api('/v1/audit?limit=1')).data[0].id;
  const csrf = await page.locator('input[name="csrf"]').first().getAttribute('value');
  for (const form of [{}, { csrf: 'wrong' }]) {
    for (const place of ['/keys', '/vaults', '/environments', '/deployments', '/usage/budgets', '/secrets']) {
      const response = await forge(page.context(), place, { ...form, name: 'x', display_name: 'x' });
      assert.equal(response.status(), 403, place);
    }
  }
  const foreign = { 'sec-fetch-site': 'cross-site' };
  const response = await forge(page.context(), '/vaults', { csrf, display_name: 'x' }, foreign);
  assert.equal(response.status(), 403);
  const file = { name: 'x', mimeType: 'text/plain', buffer: Buffer.from('x') };
  for (const [multipart, headers] of [[{ file }, {}], [{ csrf: 'wrong', file }, {}], [{ csrf, file }, foreign]]) {
    const sent = await page.context().request.post(`${world.base}/files`, { multipart, headers });
    assert.equal(sent.status(), 403);
  }
  assert.equal((await world.api('/v1/audit?limit=1')).data[0].id, n, 'nothing was noted');
  assert.equal((await world.api('/v1/files')).data.length, 0);
});

await story('without scripts and with the keyboard alone', async () => {
  const still = await world.page({ javaScriptEnabled: false });
  await world.signIn(still, '/keys');
  await still.locator('summary').focus();
  await still.keyboard.press('Enter');
  await still.getByLabel('Name').fill('by keyboard');
  await still.keyboard.press('Enter');
  await still.getByText('the only time you see the key by keyboard').waitFor();
  quiet(still);
  await still.context().close();
});

await suite.close();
