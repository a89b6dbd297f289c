// A server in a directory of its own, a wire to it that can be cut, and a browser.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

export const KEY = 'the-master-key-of-the-browser-tests';

// Nothing takes longer, unless it never happens.
export const SOON = 15_000;

export class World {
  // With further settings of the server, if any.
  static async open(env = {}) {
    const world = new World();
    world.env = env;
    world.pages = [];
    world.place = fs.mkdtempSync(path.join(os.tmpdir(), 'bellpull-ui-'));
    world.shots = process.env.BELLPULL_TEST_ARTIFACTS ?? path.join(world.place, 'shots');
    fs.mkdirSync(world.shots, { recursive: true });
    try {
      await world.serve();
      await world.wire();
      world.browser = await chromium.launch({
        executablePath: process.env.BELLPULL_TEST_CHROMIUM,
        args: [
          '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
          '--disable-background-networking', '--disable-component-update', '--disable-sync',
        ],
      });
    } catch (error) {
      await world.close();
      throw error;
    }
    return world;
  }

  async serve() {
    const data = path.join(this.place, 'data');
    this.log = '';
    this.server = spawn(
      process.env.BELLPULL_TEST_BINARY,
      ['serve', '--data-dir', data, '--listen', '127.0.0.1:0'],
      { env: { PATH: process.env.PATH, HOME: this.place, BELLPULL_MASTER_KEY: KEY, BELLPULL_LIMITS__FREE_DISK_BYTES_MIN: '1048576', ...this.env }, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    this.server.stderr.setEncoding('utf8').on('data', (text) => { this.log += text; });
    const address = await until('the server listens', () => {
      if (this.server.exitCode !== null) throw new Error(`the server ended:\n${this.log}`);
      return this.log.match(/address=(\S+:\d+)/)?.[1];
    });
    this.direct = `http://${address}`;
    this.port = Number(address.split(':').at(-1));
    await until('the server is ready', async () => (await fetch(`${this.direct}/readyz`)).ok);
  }

  // The browser reaches the server by a wire that a test can cut.
  async wire() {
    this.sockets = new Set();
    this.isCut = false;
    this.gate = net.createServer((near) => {
      if (this.isCut) {
        near.destroy();
        return;
      }
      const far = net.connect(this.port, '127.0.0.1');
      const pair = { near, far, head: '' };
      this.sockets.add(pair);
      const end = () => {
        near.destroy();
        far.destroy();
        this.sockets.delete(pair);
      };
      near.on('data', (bytes) => { pair.head = bytes.toString('latin1').split('\r\n')[0]; });
      near.pipe(far).pipe(near);
      for (const socket of [near, far]) socket.on('close', end).on('error', end);
    });
    this.gate.listen(0, '127.0.0.1');
    await once(this.gate, 'listening');
    this.base = `http://127.0.0.1:${this.gate.address().port}`;
  }

  streams() {
    return [...this.sockets].filter((pair) => pair.head.includes('/live')).length;
  }

  cut() {
    this.isCut = true;
    for (const pair of this.sockets) pair.near.destroy();
  }

  mend() {
    this.isCut = false;
  }

  // A request of a program, past the wire.
  async api(place, body, method = body ? 'POST' : 'GET') {
    const headers = { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' };
    const response = await fetch(this.direct + place, { method, headers, body: body && JSON.stringify(body) });
    if (!response.ok) throw new Error(`${method} ${place}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  // A page of its own context.
  async page(options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    context.setDefaultTimeout(SOON);
    await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: this.base });
    await context.addInitScript(() => {
      addEventListener('securitypolicyviolation', (event) => {
        console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
      });
    });
    return this.watch(await context.newPage());
  }

  // Another page of the same visitor.
  async beside(page) {
    return this.watch(await page.context().newPage());
  }

  // What goes wrong in a page is collected in `page.complaints`.
  watch(page) {
    this.pages.push(page);
    page.complaints = [];
    // A page that is left while it asks for what is new: the browser gives the request up, and then the
    // page says so.
    let givenUp = 0;
    page.on('requestfailed', (request) => {
      const isLeft = request.resourceType() === 'fetch' && request.method() === 'GET';
      if (isLeft && request.failure()?.errorText === 'net::ERR_ABORTED') givenUp += 1;
    });
    page.on('domcontentloaded', () => { givenUp = 0; });
    page.on('console', (message) => {
      if (givenUp > 0 && message.text().includes('Failed to fetch')) {
        givenUp -= 1;
        return;
      }
      if (message.type() !== 'error' && message.type() !== 'warning') return;
      page.complaints.push(`${message.text()} ${message.location().url}`);
    });
    page.on('pageerror', (error) => page.complaints.push(`uncaught: ${error.message}`));
    return page;
  }

  async signIn(page, next = '/agents') {
    await page.goto(this.base + next);
    await page.getByLabel('API key').fill(KEY);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.waitForURL(this.base + next);
  }

  async close({ failed = false } = {}) {
    await this.browser?.close();
    this.gate?.close();
    for (const pair of this.sockets ?? []) pair.near.destroy();
    if (this.server && this.server.exitCode === null) {
      this.server.kill('SIGTERM');
      const ended = once(this.server, 'exit');
      const late = setTimeout(() => this.server.kill('SIGKILL'), SOON);
      await ended;
      clearTimeout(late);
    }
    if (failed) console.error(`kept for a look: ${this.place}`);
    else fs.rmSync(this.place, { recursive: true, force: true });
  }
}

// Asks again until the answer is truthy.
export async function until(what, ask) {
  const end = Date.now() + SOON;
  let last;
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
      last = undefined;
    } catch (error) {
      if (/the server ended/.test(error.message)) throw error;
      last = error;
    }
    if (Date.now() > end) throw new Error(`it never came true that ${what}`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
