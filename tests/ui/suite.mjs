// What all suites have in common: a server with a browser, stories one after the other, and looking at a
// page in both lights and widths. Every look is a picture, and all pictures of a suite are on its sheets.

import assert from 'node:assert/strict';
import path from 'node:path';
import { AxeBuilder } from '@axe-core/playwright';
import { contactSheets } from './sheet.mjs';
import { World } from './world.mjs';

const LOOKS = [['light', 1280], ['dark', 390], ['light', 390], ['dark', 1280]];

export class Suite {
  // With further settings of the server, if any.
  static async open(name, env) {
    const suite = new Suite();
    suite.name = name;
    suite.world = await World.open(env);
    suite.pictures = [];
    suite.failed = false;
    return suite;
  }

  story = async (name, tell) => {
    const started = Date.now();
    try {
      await tell();
      console.log(`ok    ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
    } catch (error) {
      this.failed = true;
      console.log(`FAIL  ${name}`);
      console.error(error);
    }
  };

  // Photographed, not wider than the screen, and accessible in both lights. Two looks of four do for a
  // page that differs little from another one; `without` names what comes many times over and need not be
  // looked at each time; of a very long page the beginning is photographed.
  inspect = async (page, name, { looks = 4, without = [], whole = true } = {}) => {
    const seen = new Set();
    for (const [colorScheme, width] of LOOKS.slice(0, looks)) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.setViewportSize({ width, height: 844 });
      // What stays in sight while a page is scrolled would be in the middle of its picture.
      await page.evaluate(() => scrollTo({ top: 0, behavior: 'instant' }));
      // A caret that is hidden for the picture would need a style that the policy forbids.
      const file = path.join(this.world.shots, `${this.name}-${name}-${colorScheme}-${width}.png`);
      await page.screenshot({ path: file, fullPage: whole, caret: 'initial' });
      assert.ok(!this.pictures.some((it) => it.file === file), `two pages are called ${name}`);
      this.pictures.push({ name, colorScheme, width, file });
      const over = await page.evaluate(() => {
        const it = document.scrollingElement;
        return it.scrollWidth - it.clientWidth;
      });
      assert.equal(over, 0, `${name} at ${width} px is wider than the screen`);
      if (seen.has(colorScheme)) continue;
      seen.add(colorScheme);
      const builder = without.reduce((axe, it) => axe.exclude(it), new AxeBuilder({ page }));
      const { violations } = await builder.analyze();
      const found = violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.html).join(' | ')}`);
      assert.deepEqual(found, [], `${name}, ${colorScheme}, ${width} px`);
    }
    await page.setViewportSize({ width: 1280, height: 800 });
    await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
  };

  // What the page complains about, but for what a story brought about.
  quiet = (page, ...expected) => {
    const unexpected = page.complaints.filter((text) => !expected.some((it) => it.test(text)));
    page.complaints.length = 0;
    assert.deepEqual(unexpected, []);
  };

  async close() {
    await this.story('no page complained of what no story expects', () => {
      for (const page of this.world.pages) this.quiet(page);
    });
    if (this.pictures.length > 0) {
      await this.story(`${this.pictures.length} pictures are on contact sheets`, () => (
        contactSheets(this.world.browser, this.world.shots, this.name, this.pictures)
      ));
    }
    await this.world.close({ failed: this.failed });
    process.exit(this.failed ? 1 : 0);
  }
}
