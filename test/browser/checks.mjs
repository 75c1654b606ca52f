// Checks of the page in a browser: node checks.mjs URL CHECK... prints a line for each, and
// fails with the first that does not hold. test/browser_test.go starts the programs behind it.
import { accessible, check, launch, narrow, open, until } from './browser.mjs';

const [url, ...wanted] = process.argv.slice(2);
const at = (query) => url + query;
const credentials = process.env.PAGE_USERNAME && { httpCredentials: { username: process.env.PAGE_USERNAME, password: process.env.PAGE_PASSWORD } };
const refused = /status of 429/; // the browser itself reports it
const away = /Failed to load resource|ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE/;

// ask has the test do something, and waits until it has.
async function ask(what) {
  const response = await fetch(`${process.env.DEEDS}/${encodeURIComponent(what)}`, { method: 'POST' });
  check(response.ok, `${what}: ${response.status}`);
}

const energy = () => document.querySelector('.now [data-key^="energy"] b')?.textContent;

const checks = {
  // Values come by themselves.
  async values(browser) {
    const page = await open(browser, url, credentials);
    const before = await until(page, 'a first value', energy);
    check(/^\d+\.\d+$/.test(before), `energy is ${before}`);
    await page.evaluate(() => { window.sameDocument = true; });
    await until(page, 'another value', (was) => document.querySelector('.now [data-key^="energy"] b').textContent !== was, before);
    const reading = await page.locator('.status time').getAttribute('datetime');
    await until(page, 'a later reading', (was) => document.querySelector('.status time').dateTime > was, reading);
    check(await page.evaluate(() => window.sameDocument), 'the page was loaded anew');
    const state = await page.evaluate(async () => (await fetch(document.querySelector('form.read').action.replace(/\/read$/, ''))).json());
    const keys = await page.evaluate(() => [...document.querySelectorAll('.now [data-key]')].map((e) => e.dataset.key));
    check(keys.length >= 6 && keys[0].startsWith('energy_') && keys[1].startsWith('power_') && keys.every((k) => k in state.state), `the values are ${keys}`);
    await page.close();
  },

  // Without JavaScript it informs.
  async plain(browser) {
    const page = await open(browser, url, { ...credentials, javaScriptEnabled: false });
    check(/^\d+\.\d+$/.test(await page.locator('.now [data-key^="energy"] b').textContent()), 'no value');
    check(await page.locator('form.read').isVisible() && (await page.content()).includes('Curves need JavaScript'), 'what there is without JavaScript is not shown');
    check(!(await page.locator('#unit').isVisible()), 'a control that does nothing');
    await page.close();
  },

  // "Read now" reads, and says when it may not. What joins a reading that is running is free.
  async read(browser) {
    const page = await open(browser, url, credentials);
    await page.getByRole('button', { name: 'Read now' }).click();
    await until(page, 'an answer', () => /^The meter answered at .*\d (GJ|MWh|kWh)/.test(document.querySelector('.answer').textContent));
    for (let i = 0; i < 100 && !/^Not now/.test(await page.locator('.answer').textContent()); i++) {
      await page.getByRole('button', { name: 'Read now' }).click();
      await until(page, 'an answer', () => !document.querySelector('.read [aria-busy]'));
    }
    const answer = await page.locator('.answer').textContent();
    check(/too many requests.*It may be asked again at \d\d:\d\d:\d\d, in \d+ s\./.test(answer), `the refusal says ${answer}`);
    await page.close(refused);
  },

  // A meter that does not answer: the read says why, the page what to do.
  async silent(browser) {
    const page = await open(browser, url, credentials);
    await until(page, 'the diagnosis', () => document.querySelector('.trouble .step'));
    check(/Offline/.test(await page.locator('.chip').textContent()), 'it is not offline');
    check(/What to do: .*button/.test(await page.locator('.trouble').textContent()), 'the next step is missing');
    await page.getByRole('button', { name: 'Read now' }).click();
    await until(page, 'an answer', () => /^The meter could not be read: .+/.test(document.querySelector('.answer').textContent));
    await until(page, 'the broker is away', () => /The broker is away/.test(document.getElementById('bridge').textContent));
    await accessible(page, 'a meter in trouble');
    await page.close(/status of 502/);
  },

  // Curves and bars are drawn, and follow.
  async charts(browser) {
    const page = await open(browser, url, credentials);
    const drawn = () => [...document.querySelectorAll('.plot')].map((e) => ({
      label: e.getAttribute('aria-label'),
      series: e.plot.data.length - 1,
      points: e.plot.data[0].length,
      known: e.plot.data.slice(1).every((s) => s.some((v) => v !== null)),
    }));
    await until(page, 'five charts', () => document.querySelectorAll('.plot').length === 5);
    await until(page, 'bars', () => document.querySelectorAll('.plot')[3].plot.data[0].length > 1);
    const charts = await page.evaluate(drawn);
    check(charts.map((c) => c.series).join() === '1,2,1,1,1', `series: ${JSON.stringify(charts)}`);
    check(/^Power in kW: from .* to .*, last /.test(charts[0].label) && charts.slice(0, 4).every((c) => c.known), JSON.stringify(charts));
    const before = charts[0].points;
    await until(page, 'another point', (n) => document.querySelector('.plot').plot.data[0].length > n, before);
    // What is drawn has the colours of the page, in light and in dark.
    const inks = () => [...document.querySelectorAll('.plot')].slice(0, 4).map((e, i) => {
      const canvas = e.querySelector('canvas');
      const probe = document.createElement('canvas').getContext('2d');
      probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(['--power', '--supply', '--flow', '--power'][i]);
      probe.fillRect(0, 0, 1, 1);
      const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
      const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      let n = 0;
      for (let k = 0; k < pixels.length; k += 4) {
        if (pixels[k + 3] > 100 && Math.abs(pixels[k] - r) + Math.abs(pixels[k + 1] - g) + Math.abs(pixels[k + 2] - b) < 24) n++;
      }
      return n;
    });
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      let pixels = [];
      for (const deadline = Date.now() + 10000; Date.now() < deadline && !(pixels.length && pixels.every((n) => n > 30));) pixels = await page.evaluate(inks);
      check(pixels.every((n) => n > 30), `${colorScheme}: pixels ${pixels}`);
    }
    // The values under the cursor.
    const plot = page.locator('.plot').first();
    const newest = await page.locator('.readout').first().textContent();
    await plot.hover({ position: { x: 400, y: 60 } });
    await until(page, 'the values under the cursor', () => document.querySelector('.plot').plot.cursor.idx !== null);
    check(/\d\d:\d\d .*\d kW$/.test(newest), `the readout says ${newest}`);
    // It follows the window.
    await page.setViewportSize({ width: 700, height: 900 });
    await until(page, 'a smaller chart', () => document.querySelector('.plot canvas').getBoundingClientRect().right <= innerWidth && document.querySelector('.plot').plot.width < 660);
    // The same as tables.
    await page.getByText('The curves as tables').click();
    await until(page, 'tables', () => document.querySelectorAll('.tables table').length === 3 && document.querySelectorAll('.tables tbody tr').length > 2);
    await page.close(/Canvas2D: Multiple readback/); // our own look at the pixels
  },

  // The owner's unit of energy: exact arithmetic, and it is remembered.
  async units(browser) {
    const page = await open(browser, url, credentials);
    const wrong = await page.evaluate(async () => {
      const script = document.querySelector('script[type=module]').src;
      const { convert } = await import(new URL('common.js', script));
      const cases = [
        ['227.445', 'GJ', 'MWh', '63.1792'], ['227.445', 'GJ', 'kWh', '63179.2'], ['3.6', 'GJ', 'MWh', '1.00'], ['1', 'MWh', 'GJ', '4'], ['1.000', 'MWh', 'GJ', '3.600'],
        ['12345', 'kWh', 'MWh', '12.345'], ['12.50', 'GJ', 'GJ', '12.50'], ['0.000', 'GJ', 'kWh', '0.0'], ['-1.5', 'MWh', 'kWh', '-1500'], ['-0.0001', 'GJ', 'MWh', '-0.00003'],
        ['123456789012345678901234567890.5', 'kWh', 'GJ', '444444440444444444044444444.4058'],
        ['115.7421924', 'GJ', 'kWh', '32150.60900'], ['5', 'm³', 'GJ', null], ['2026-03-13', 'GJ', 'kWh', null],
      ];
      return cases.map(([text, from, to, want]) => [text, from, to, want, convert(text, from, to)]).filter(([, , , want, got]) => want !== got);
    });
    check(!wrong.length, `converted wrong: ${JSON.stringify(wrong)}`);
    await until(page, 'a value', energy);
    await page.selectOption('#unit', 'kWh');
    const shown = () => document.querySelector('.hero .num').textContent.trim();
    await until(page, 'kWh', () => /^\d+\.\d\s+kWh$/.test(document.querySelector('.hero .num').textContent.trim()));
    await until(page, 'bars in kWh', () => /^Energy.* kWh/.test([...document.querySelectorAll('.chart h3')].at(-1)?.textContent));
    await page.reload();
    await until(page, 'kWh, remembered', () => /kWh$/.test(document.querySelector('.hero .num')?.textContent.trim()));
    check(/kWh$/.test(await page.evaluate(shown)) && await page.inputValue('#unit') === 'kWh', 'the unit is forgotten');
    const before = await page.evaluate(energy);
    await until(page, 'a newer value in kWh', (was) => document.querySelector('.now [data-key^="energy"] b').textContent !== was, before);
    check(/kWh$/.test(await page.evaluate(shown)), 'news come in another unit');
    await page.close();
  },

  // The head is put on while somebody watches.
  async align(browser) {
    const page = await open(browser, at('?view=align'), { ...credentials, viewport: { width: 390, height: 844 } });
    await page.evaluate(() => { // what cannot be heard and felt here
      window.noted = { notes: 0, shakes: 0 };
      const start = OscillatorNode.prototype.start;
      OscillatorNode.prototype.start = function noted(...a) { window.noted.notes++; return start.apply(this, a); };
      navigator.vibrate = () => { window.noted.shakes++; return true; };
    });
    await page.getByRole('button', { name: 'Start' }).click();
    await until(page, 'reads that fail', () => document.querySelectorAll('.dots .no').length > 0);
    check(await page.locator('#level').textContent() === '0' && await page.locator('.gauge.locked').count() === 0, 'it does not begin at 0');
    check(/echo|Nothing|sleeps/.test(await page.locator('#verdict').textContent()), 'it does not say what is wrong');
    await ask('put the head on');
    await until(page, 'the bar moves', () => { const n = Number(document.getElementById('level').textContent); return n > 0 && n < 100; });
    const width = await page.evaluate(() => document.getElementById('fill').getAttribute('width'));
    check(/^\d+%$/.test(width) && width !== '0%', `the bar is ${width} wide`);
    await until(page, 'it locks', () => document.querySelector('.gauge.locked') && /Locked/.test(document.getElementById('verdict').textContent));
    const noted = await page.evaluate(() => window.noted);
    check(noted.notes >= 3 && noted.shakes >= 1, `neither heard nor felt: ${JSON.stringify(noted)}`);
    check(/^\d+ ms$/.test(await page.locator('#byte').textContent()), 'when the first byte came is not said');
    await page.getByText('The last frames').click();
    check(/^80 3F 02 /m.test(await page.locator('#frames').innerText()), 'the last frames are missing');
    const high = await page.evaluate(() => [document.querySelector('.level b').getBoundingClientRect().height, document.querySelector('.big').getBoundingClientRect()].map((r) => r.height ?? r));
    check(high[0] >= 90 && high[1] >= 80, `too small to be seen from 2 m: ${high}`);
    await page.getByRole('button', { name: 'Stop' }).click();
    await until(page, 'it stops', () => document.getElementById('verdict').textContent === 'Stopped' && document.getElementById('go').textContent === 'Start');
    await page.goto(url);
    await until(page, 'readings go on', () => /Online/.test(document.querySelector('.chip').textContent));
    await page.close(/AudioContext/);
  },

  // Everything by keyboard, and where the focus is can be seen.
  async keyboard(browser) {
    const page = await open(browser, url, credentials);
    await until(page, 'charts', () => document.querySelectorAll('.plot').length > 0);
    const focused = () => {
      const e = document.activeElement;
      const style = getComputedStyle(e);
      return { text: (e.getAttribute('aria-label') || e.textContent || e.id).trim().slice(0, 60), tag: e.tagName, seen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 };
    };
    async function tab(text) {
      for (let i = 0; i < 60; i++) {
        await page.keyboard.press('Tab');
        const f = await page.evaluate(focused);
        check(f.tag === 'BODY' || f.seen, `the focus on ${f.text} cannot be seen`);
        if (text.test(f.text)) return;
      }
      throw new Error(`the keyboard does not reach ${text}`);
    }
    await tab(/^To the meters/);
    await tab(/^kmp2mqtt/);
    await tab(/the meter’s unit/);
    await tab(/^Read now/);
    await page.keyboard.press('Enter');
    await until(page, 'an answer', () => /answered|Not now/.test(document.querySelector('.answer').textContent));
    check(await page.evaluate(() => document.activeElement.textContent) === 'Read now', 'the focus is lost');
    await tab(/^All values/);
    await page.keyboard.press('Enter');
    await until(page, 'all values', () => document.querySelector('.rest').checkVisibility());
    await tab(/^The curves as tables/);
    await page.keyboard.press('Space');
    await until(page, 'tables', () => document.querySelector('.tables table'));
    await tab(/^The curves as tables/); // the region that scrolls
    await tab(/^Align the head/);
    await page.keyboard.press('Enter');
    await page.waitForURL(/view=align/);
    await until(page, 'it can be started', () => document.getElementById('go') && !document.getElementById('go').disabled);
    await tab(/^Start/);
    await page.keyboard.press('Enter');
    await until(page, 'it moves', () => Number(document.getElementById('level').textContent) > 0);
    await page.keyboard.press('Enter');
    await until(page, 'it stops', () => document.getElementById('verdict').textContent === 'Stopped');
    await page.goto(at('?view=expert'));
    await tab(/^Support bundle/);
    await tab(/^Copy as a command/);
    await page.keyboard.press('Enter');
    await until(page, 'copied', () => /^Copied/.test(document.getElementById('say').textContent));
    await page.close(refused, /AudioContext/);
  },

  // The expert's view: frames in words, a command to copy, a bundle, no password.
  async expert(browser) {
    const page = await open(browser, at('?view=expert'), { ...credentials, permissions: ['clipboard-read', 'clipboard-write'] });
    await until(page, 'frames', () => document.querySelectorAll('.frames .came').length > 1 && document.querySelectorAll('.frames .sent').length > 1);
    const first = await page.evaluate(() => document.querySelector('.frames li').id);
    await until(page, 'newer frames', (id) => document.querySelector('.frames li').id !== id, first);
    check(/GetRegister \(10\)/.test(await page.locator('.frames').innerText()) && /energy \d+\.\d+ GJ/.test(await page.locator('.frames').innerText()), 'frames are not explained');
    await page.locator('[data-copy]').first().click();
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    check(/^kmp2mqtt decode( [0-9A-F]{2})+$/.test(copied), `copied: ${copied}`);
    console.log(`copied: ${copied}`);
    await page.evaluate(() => { // as on plain http, where the clipboard is hidden
      navigator.clipboard.writeText = () => Promise.reject(new Error('hidden'));
      document.addEventListener('copy', () => { window.copied = document.activeElement.value; });
    });
    await page.locator('[data-copy]').last().click();
    await until(page, 'copied in the old way', () => /^kmp2mqtt decode /.test(window.copied || ''));
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'Support bundle' }).click()]);
    check(/^kmp2mqtt-.*\.json$/.test(download.suggestedFilename()), `the bundle is called ${download.suggestedFilename()}`);
    check(await page.locator('#profile tbody tr').count() > 0, 'no profile');
    const all = await page.content();
    check(!all.includes(process.env.SECRET || 'hunter2'), 'a password is shown');
    check(/MQTT_PASSWORD/.test(all) || !process.env.SECRET, 'the settings are not shown');
    await page.close();
  },

  // 320 pixels wide, nothing to scroll sideways; nothing that a finger misses.
  async narrow(browser) {
    for (const query of ['', '?view=align', '?view=expert']) {
      const page = await open(browser, at(query), { ...credentials, viewport: { width: 320, height: 640 }, hasTouch: true });
      if (!query) {
        await until(page, 'charts', () => document.querySelectorAll('.plot').length > 0);
        for (const summary of await page.locator('.more summary:visible').all()) await summary.click();
      }
      await narrow(page, query || 'values');
      const small = await page.evaluate(() => [...document.querySelectorAll('button, select, input, summary, nav a, .button')].filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 40).map((e) => e.outerHTML));
      check(!small.length, `${query}: too small for a finger: ${small}`);
      await page.close();
    }
  },

  // Nothing serious in any view, light and dark.
  async axe(browser) {
    for (const colorScheme of ['light', 'dark']) {
      for (const query of ['', '?view=align', '?view=expert', '?meter=nobody']) {
        const page = await open(browser, at(query), { ...credentials, colorScheme, reducedMotion: 'reduce' });
        if (!query) {
          await until(page, 'charts', () => document.querySelectorAll('.plot').length > 0);
          for (const summary of await page.locator('.more summary:visible').all()) await summary.click();
        }
        await accessible(page, `${query || 'values'}, ${colorScheme}`);
        await page.close(/status of 404/);
      }
    }
  },

  // A long list: what is looked for is found, and unfolds.
  async many(browser) {
    const page = await open(browser, url, credentials);
    check(await page.locator('.list > .card').count() === 7, 'not all meters are listed');
    await until(page, 'values in the list', () => [...document.querySelectorAll('.row-value')].filter((e) => /GJ|kWh|MWh/.test(e.textContent)).length === 7);
    await page.getByRole('searchbox').fill('five');
    await until(page, 'one meter', () => [...document.querySelectorAll('.list > .card')].filter((e) => e.checkVisibility()).length === 1);
    await page.locator('.list > .card:visible > summary').press('Enter');
    await until(page, 'it unfolds, with charts', () => document.querySelectorAll('.card[open] .tile').length > 3 && document.querySelectorAll('.card[open] .plot').length > 1);
    const before = await page.evaluate(() => document.querySelector('.card[open] [data-ago]').dataset.ago);
    await until(page, 'it lives', (was) => document.querySelector('.card[open] [data-ago]').dataset.ago > was, before);
    await page.getByRole('searchbox').fill('no such meter');
    await until(page, 'nothing is found, and it says so', () => document.getElementById('none').checkVisibility());
    await accessible(page, 'many meters');
    await page.setViewportSize({ width: 320, height: 640 });
    await page.getByRole('searchbox').fill('');
    await narrow(page, 'many meters');
    await page.close();
  },

  // The program goes away and comes back.
  async lost(browser) {
    const page = await open(browser, url, credentials);
    await until(page, 'a value', energy);
    await ask('stop the program');
    await until(page, 'the page says so', () => document.getElementById('lost').checkVisibility());
    await page.getByRole('button', { name: 'Read now' }).click();
    await until(page, 'an answer', () => /kmp2mqtt does not answer/.test(document.querySelector('.answer').textContent));
    await ask('start the program');
    await until(page, 'it is back', () => !document.getElementById('lost').checkVisibility());
    const before = await page.evaluate(() => document.querySelector('[data-ago]')?.dataset.ago || '');
    await until(page, 'it lives', (was) => (document.querySelector('[data-ago]')?.dataset.ago || '') > was, before);
    await page.close(away);
  },

  // Nobody sees anything without the password.
  async password(browser) {
    for (const httpCredentials of [undefined, { username: process.env.PAGE_USERNAME, password: 'wrong' }]) {
      const context = await browser.newContext({ httpCredentials });
      const page = await context.newPage();
      for (const path of ['', 'assets/page.js', 'api/v1/meters', 'api/v1/events', 'metrics']) {
        const response = await page.goto(at(path)).catch((e) => e);
        const status = response instanceof Error ? /ERR_INVALID_AUTH_CREDENTIALS/.test(response.message) && 401 : response.status();
        check(status === 401, `${path}: ${status || response}`);
      }
      await context.close();
    }
    // The name and the password in the address, which browsers do not let a page fetch with.
    const address = new URL(url);
    address.username = process.env.PAGE_USERNAME;
    address.password = process.env.PAGE_PASSWORD;
    const page = await open(browser, address.href, {});
    const before = await until(page, 'a value', energy);
    await until(page, 'another value', (was) => document.querySelector('.now [data-key^="energy"] b').textContent !== was, before);
    await page.close();
  },
};

const browser = await launch();
try {
  for (const name of wanted) {
    await checks[name](browser);
    console.log(`ok: ${name}`);
  }
} catch (e) {
  console.error(e.stack);
  process.exitCode = 1;
} finally {
  await browser.close();
}
