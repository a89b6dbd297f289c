// Contact sheets: all pictures of a suite beside one another, whole, for somebody who looks for flaws.
// The looks at one page are together, wide ones and those of a phone at one scale.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const STYLE = `
  body { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 24px 16px; margin: 8px; background: #c8c8c8; font: 12px sans-serif }
  section { display: flex; flex-wrap: wrap; gap: 0 8px }
  h2 { flex-basis: 100%; width: 0; margin: 0 0 4px; font-size: 16px }
  figure { margin: 0 }
  img { display: block; max-width: 640px; max-height: 1800px }
  .phone img { max-width: 195px }
`;

// Four looks at a page beside one another, or two at each of two pages.
const WIDTH = 1736;

// Higher ones are hard to look at. A page is not cut for it.
const HEIGHT_MAX = 2_400;

// Any picture of a page is larger; an empty one of this width is not.
const BYTES_MIN = 20_000;

// Pictures are files in `directory`, of pages with a name: `[{ name, colorScheme, width, file }]`.
// Answers the sheets' files. What they are made of is kept beside them, as a page to zoom in.
export async function contactSheets(browser, directory, suite, pictures) {
  const pages = grouped(pictures, (it) => it.name);
  const figure = ({ colorScheme, width, file }) => (
    `<figure${width < 500 ? ' class="phone"' : ''}><img src="${path.basename(file)}" alt=""><figcaption>${colorScheme}, ${width} px</figcaption></figure>`
  );
  const sections = [...pages].map(([name, looks]) => `<section><h2>${name}</h2>${looks.map(figure).join('')}</section>`);
  const source = path.join(directory, `sheet-${suite}.html`);
  fs.writeFileSync(source, `<!doctype html><title>${suite}</title><style>${STYLE}</style>${sections.join('')}`);
  const page = await browser.newPage({ viewport: { width: WIDTH, height: 1000 } });
  await page.goto(pathToFileURL(source).href);
  const missing = await page.locator('img').evaluateAll((all) => all.filter((it) => it.naturalWidth === 0).map((it) => it.src));
  assert.deepEqual(missing, []);
  const boxes = await page.locator('section').evaluateAll((all) => all.map((it) => {
    const { top, bottom } = it.getBoundingClientRect();
    return { top: Math.floor(top), bottom: Math.ceil(bottom) };
  }));
  const sheets = [];
  for (const [n, { top, bottom }] of parts(boxes).entries()) {
    const file = path.join(directory, `sheet-${suite}-${n + 1}.png`);
    const clip = { x: 0, y: top - 8, width: WIDTH, height: bottom - top + 16 };
    await page.screenshot({ path: file, fullPage: true, clip });
    assertPicture(file, clip);
    sheets.push(file);
  }
  await page.close();
  return sheets;
}

function grouped(all, of) {
  const groups = new Map();
  for (const it of all) groups.set(of(it), [...(groups.get(of(it)) ?? []), it]);
  return groups;
}

// From where to where each sheet goes: rows of pages as long as there is room.
function parts(boxes) {
  const rows = [...grouped(boxes, (it) => it.top)].map(([top, row]) => ({ top, bottom: Math.max(...row.map((it) => it.bottom)) }));
  const sheets = [];
  for (const { top, bottom } of rows) {
    const last = sheets.at(-1);
    if (last && bottom - last.top <= HEIGHT_MAX) last.bottom = bottom;
    else sheets.push({ top, bottom });
  }
  return sheets;
}

function assertPicture(file, { width, height }) {
  const bytes = fs.readFileSync(file);
  assert.equal(bytes.subarray(0, 8).toString('latin1'), '\x89PNG\r\n\x1a\n', file);
  assert.deepEqual([bytes.readUInt32BE(16), bytes.readUInt32BE(20)], [width, height], file);
  assert.ok(bytes.length >= BYTES_MIN, `${file} has ${bytes.length} bytes`);
}
