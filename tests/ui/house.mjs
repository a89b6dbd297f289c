// A server that has one of everything, so that every page of it can be seen and every form stands on one.

import { once } from 'node:events';
import http from 'node:http';
import { KEY, until } from './world.mjs';

// What the server has to be told so that it makes all of it.
export const SETTINGS = {
  BELLPULL_OUTBOX__ALLOWED_PRIVATE_HOSTS: '127.0.0.1',
  BELLPULL_SANDBOX__MODE: 'none',
  BELLPULL_WORKER__LEASE_SECONDS: '5',
};

const SECRET = 'a-secret-that-is-long';

export async function furnish(world) {
  const environment = (await world.api('/v1/environments')).data[0].id;
  const agent = async (name, policy, steps, more = {}) => {
    const configs = ['bash', 'write'].map((tool) => ({ name: tool, enabled: true, permission_policy: { type: policy } }));
    const system = `Rehearse this script:\n${JSON.stringify(steps)}`;
    const tools = [{ type: 'agent_toolset_20260401', configs }];
    return (await world.api('/v1/agents', { name, model: 'rehearsal', system, tools, ...more })).id;
  };
  const start = async (agent) => {
    const made = await world.api('/v1/sessions', { agent, environment_id: environment });
    const content = [{ type: 'text', text: 'work' }];
    await world.api(`/v1/sessions/${made.id}/events`, { events: [{ type: 'user.message', content }] });
    return made.id;
  };

  await stranded(world, agent, start);
  await unheard(world, agent, start);
  const write = ['write', { file_path: 'note.md', content: 'a note' }];
  const asks = await start(await agent('asks', 'always_ask', [{ say: 'I note that.', calls: [write] }, { say: 'Done.' }]));

  const { id: bell } = (await world.api('/v1/agents')).data.find((it) => it.name === 'default');
  const token = { name: `WEBHOOK_${bell}_SECRET`, value: 'the-token-of-the-sender' };
  await world.api('/v1/secrets', token);
  await fetch(`${world.direct}/api/agents/${bell}/webhook`, {
    method: 'POST', headers: { authorization: `Bearer ${token.value}` }, body: '{"event": "rung"}',
  });
  const { id: old } = await world.api('/v1/agents', { name: 'old', model: 'rehearsal' });
  await world.api(`/v1/agents/${old}/archive`, {});
  const at = { preset: 'bearer', secret: SECRET };
  await world.api('/v1/sources', { name: 'code', ...at });
  await world.api('/v1/sources', { name: 'kept', ...at, filter: 'body.n > 0' });
  for (const name of ['code', 'kept']) await world.api(`/v1/sources/${name}/test`, { body: { words: 'no number' } });

  await world.api('/v1/environments', { name: 'workshop' });
  const schedule = { type: 'cron', expression: '0 0 29 2 *', timezone: 'UTC' };
  const deployment = async (name) => (await world.api('/v1/deployments', {
    name, agent: bell, environment_id: environment, schedule,
    initial_events: [{ type: 'user.message', content: [{ type: 'text', text: 'Report.' }] }],
  })).id;
  const [goes, rests] = [await deployment('goes'), await deployment('rests')];
  await world.api(`/v1/deployments/${goes}/run`, {});
  await world.api(`/v1/deployments/${rests}/pause`, {});
  const { id: vault } = await world.api('/v1/vaults', { display_name: 'tools' });
  const auth = { type: 'mcp_oauth', mcp_server_url: 'https://127.0.0.1:9/mcp', access_token: 'sealed' };
  await world.api(`/v1/vaults/${vault}/credentials`, { auth });
  await world.api('/v1/budgets/all', { day: { model_calls: 1000 } });
  await upload(world);
  const { key } = await world.api('/v1/api_keys', { name: 'looker', scopes: ['read'] });
  await until('everything is at rest, or waits', async () => (
    (await world.api('/v1/sessions')).data.every((it) => it.status === 'idle')
  ));
  return { key, asks };
}

// The server died in the middle of a call, and nobody knows whether it was carried out.
async function stranded(world, agent, start) {
  const sleep = ['bash', { command: 'sleep 600' }];
  const session = await start(await agent('sleeper', 'always_allow', [{ say: 'I wait.', calls: [sleep] }, { say: 'Done.' }]));
  const effects = async (status) => (
    (await world.api(`/v1/effects?session_id=${session}`)).data.some((it) => it.status === status)
  );
  await until('the call is being carried out', () => effects('intended'));
  world.server.kill('SIGKILL');
  await once(world.server, 'exit');
  await world.serve();
  await until('it is in doubt', () => effects('in_doubt'));
}

// Nobody takes the result of a session.
async function unheard(world, agent, start) {
  const gone = http.createServer((request, response) => {
    request.resume().on('end', () => response.writeHead(410).end());
  }).listen(0, '127.0.0.1');
  await once(gone, 'listening');
  const url = `http://127.0.0.1:${gone.address().port}/results`;
  const session = await start(await agent('teller', 'always_allow', [{ say: 'Told.' }], { callback: { url } }));
  await until('its callback is given up', async () => (
    (await world.api(`/v1/outbox?session_id=${session}`)).data[0]?.status === 'dead'
  ));
  gone.closeAllConnections();
  gone.close();
}

async function upload(world) {
  const body = new FormData();
  body.append('file', new File(['a,b\n'], 'report.csv', { type: 'text/csv' }));
  const headers = { authorization: `Bearer ${KEY}` };
  const response = await fetch(`${world.direct}/v1/files`, { method: 'POST', headers, body });
  if (!response.ok) throw new Error(`the file was not taken: ${response.status} ${await response.text()}`);
}

// All that forms can change, as the API tells it.
export async function state(world) {
  const get = async (place) => (await world.api(place)).data;
  const lists = ['agents?include_archived=true', 'sources', 'deliveries', 'sessions?include_archived=true', 'deployments', 'environments',
    'vaults', 'secrets', 'files', 'effects', 'outbox'];
  const all = Object.fromEntries(await Promise.all(lists.map(async (it) => [it, await get(`/v1/${it}`)])));
  // How long a session has been there, and when a key was used last, is not what a form changes.
  for (const it of all['sessions?include_archived=true']) delete it.stats;
  all.keys = (await get('/v1/api_keys')).map(({ id, revoked_at }) => [id, revoked_at]);
  all.credentials = await Promise.all(all.vaults.map(({ id }) => get(`/v1/vaults/${id}/credentials`)));
  all.budget = await world.api('/v1/budgets/all');
  all.audit = (await get('/v1/audit?limit=1'))[0].id;
  return all;
}
