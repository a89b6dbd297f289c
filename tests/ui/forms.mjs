// Every form of every page: which there are by the server's source, which the pages show, and a way to
// send one otherwise than its page would.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('../../src/web/ui', import.meta.url));

// The paths that forms are sent to, as the router has them: `/agents/{id}/pause`.
export function postRoutes() {
  const files = fs.readdirSync(SOURCE, { recursive: true }).filter((it) => it.endsWith('.rs'));
  const texts = files.map((it) => fs.readFileSync(path.join(SOURCE, it), 'utf8')).filter((it) => it.includes('.route('));
  const routes = texts.flatMap((text) => text.split('.route(').slice(1).flatMap((route) => {
    const [, place, handlers] = route.match(/^\s*"([^"]+)",(.*?)(?:\n\}|\.layer\(|\.merge\(|$)/s);
    assert.ok(!/\b(put|patch|delete|any|on)\(/.test(handlers), `${place} takes what no form sends`);
    return /\bpost\(/.test(handlers) ? [place] : [];
  }));
  const n = texts.join('').match(/\bpost\(/g).length;
  assert.equal(routes.length, n, 'each of them was understood');
  return routes;
}

// The route that a path leads to: where two match, the one with fewer names to fill in.
export function routeOf(routes, place) {
  const names = (it) => it.split('{').length;
  const matches = routes.filter((it) => new RegExp(`^${it.replace(/\{\w+\}/g, '[^/]+')}$`).test(place));
  return matches.sort((one, other) => names(one) - names(other))[0];
}

// What a page links to, and what its forms send; runs in the page.
function look() {
  const links = [...document.querySelectorAll('a[href]:not([download])')].map((it) => it.href);
  const sends = [];
  const path = (it) => new URL(it, location.href).pathname;
  for (const form of document.forms) {
    const method = form.getAttribute('method');
    if (method === 'dialog') continue;
    // One that has no button is sent with the enter key.
    const buttons = [...form.elements].filter((it) => it.type === 'submit');
    for (const button of buttons.length > 0 ? buttons : [null]) {
      const at = button?.getAttribute('formaction') ?? form.getAttribute('action') ?? location.href;
      if ((button?.getAttribute('formmethod') ?? method) !== 'post') {
        const query = new URLSearchParams(new FormData(form, button));
        links.push(new URL(`?${query}`, new URL(at, location.href)).href);
        if (location.search) continue;
        // One choice of each list that has some.
        for (const list of form.querySelectorAll('select')) {
          const choice = [...list.options].find((it) => it.value && it.value !== list.value);
          if (!choice) continue;
          const chosen = new URLSearchParams(query);
          chosen.set(list.name, choice.value);
          links.push(new URL(`?${chosen}`, new URL(at, location.href)).href);
        }
        continue;
      }
      const fields = [...new FormData(form, button)].map(([name, value]) => {
        if (value instanceof File) return [name, null];
        return [name, value || (form.elements[name].required ? 'x' : '')];
      });
      sends.push({ place: path(at), type: form.enctype, fields });
    }
  }
  // What a script sends in a form's place goes where the form goes.
  const scripted = [...document.querySelectorAll('[hx-post], [hx-put], [hx-patch], [hx-delete]')]
    .filter((it) => !it.hasAttribute('hx-post') || it.getAttribute('hx-post') !== it.getAttribute('action'))
    .map((it) => it.outerHTML);
  return { links, sends, scripted };
}

// Goes wherever links and filters lead, and to the places of `start`. Of a page with a query it sees one
// for each set of names in it. Answers the places, and what each of the forms sends.
export async function explore(page, base, start, { quiet, check = () => {} }) {
  const seen = new Set(), places = [], sends = [];
  const queue = [];
  const add = (address, isLinked) => {
    const url = new URL(address, base);
    if (url.origin !== new URL(base).origin || url.pathname.endsWith('.json')) return;
    const names = [...url.searchParams].filter(([, value]) => value).map(([name]) => name).sort();
    const shape = `${url.pathname}?${names}`;
    if (seen.has(shape)) return;
    seen.add(shape);
    queue.push({ place: url.pathname + url.search, isLinked });
  };
  const visit = async () => {
    for (let next; (next = queue.shift());) {
      const { place, isLinked } = next;
      const response = await page.goto(base + place);
      assert.equal(new URL(page.url()).pathname, new URL(base + place).pathname, 'nobody is sent elsewhere');
      const found = await page.evaluate(look);
      assert.deepEqual(found.scripted, [], place);
      await check({ place, isLinked, status: response.status(), ...found });
      quiet(page, ...(isLinked ? [] : [/status of 403/]));
      places.push(place);
      for (const it of found.sends) sends.push({ from: place, ...it });
      for (const it of found.links) add(it, true);
    }
  };
  add('/', true);
  await visit();
  for (const it of start) add(it, false);
  await visit();
  return { places, sends };
}

// Of what is sent to one route with the same fields, the first.
export function distinct(routes, sends) {
  const found = new Map();
  for (const it of sends) {
    const route = routeOf(routes, it.place);
    assert.ok(route, `${it.from} has a form for ${it.place}, which no route takes`);
    const names = it.fields.map(([name]) => name);
    const key = `${route} ${[...new Set(names)].sort()}`;
    if (!found.has(key)) found.set(key, { route, ...it });
  }
  return [...found.values()];
}

// Sends a form from the page that is open, with this token or none. Answers the status; that of a
// redirect, which is what a form that changed something is answered with, is 303.
export function send(page, { place, type, fields }, csrf) {
  const sent = fields.filter(([name]) => name !== 'csrf');
  if (csrf !== undefined) sent.unshift(['csrf', csrf]);
  return page.evaluate(async ([place, type, sent]) => {
    const inParts = type === 'multipart/form-data';
    const body = inParts ? new FormData() : new URLSearchParams();
    for (const [name, value] of sent) body.append(name, value ?? new File(['x'], 'x.txt'));
    const response = await fetch(place, { method: 'POST', body, redirect: 'manual' });
    return response.type === 'opaqueredirect' ? 303 : response.status;
  }, [place, type, sent]);
}
