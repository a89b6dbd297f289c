// Whether a page can be read and used by everybody: axe-core, by day and by night.

import assert from 'node:assert/strict';
import { AxeBuilder } from '@axe-core/playwright';

// Fails with every rule that is broken and where. Leaves the page in the light. Of what comes many
// times over, `without` names what need not be looked at each time.
export async function checkAccessibility(page, name, without = []) {
  for (const colorScheme of ['dark', 'light']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    const builder = without.reduce((axe, it) => axe.exclude(it), new AxeBuilder({ page }));
    const { violations } = await builder.analyze();
    const found = violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.html).join(' | ')}`);
    assert.deepEqual(found, [], `${name}, ${colorScheme}`);
  }
}
