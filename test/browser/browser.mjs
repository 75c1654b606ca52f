// What every check of the page needs: Debian's Chromium, a page that is watched, waiting for
// a condition, and axe-core.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';

const rules = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// PATIENCE is how long a condition may take to come true, in milliseconds. It is no promise
// about speed: the machine may be busy.
export const PATIENCE = 60000;

export const launch = () => chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  // Root has no sandbox; the others keep the browser from calling anybody.
  args: [...(process.getuid() === 0 ? ['--no-sandbox'] : []), '--disable-quic', '--disable-background-networking', '--autoplay-policy=user-gesture-required'],
});

// open opens a page and watches it: whatever it asks of another origin, writes to the console
// as an error or throws is a complaint. allow is what may be complained about all the same.
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: 'light', ...options });
  const page = await context.newPage();
  const complaints = [];
  page.on('request', (r) => {
    if (new URL(r.url()).origin !== new URL(url).origin) complaints.push(`another origin: ${r.url()}`);
  });
  page.on('console', (m) => {
    if (m.type() === 'error' || m.type() === 'warning') complaints.push(`console: ${m.text()}`);
  });
  page.on('pageerror', (e) => complaints.push(`error: ${e.stack}`));
  await page.goto(url);
  page.close = async (...allow) => {
    await context.close();
    const left = complaints.filter((c) => !allow.some((a) => a.test(c)));
    if (left.length) throw new Error(left.join('\n'));
  };
  return page;
}

// until waits for a condition in the page, and returns what is true.
export async function until(page, what, condition, argument) {
  let why = 'it is not so';
  for (const end = Date.now() + PATIENCE; Date.now() < end;) {
    try {
      const value = await page.evaluate(condition, argument);
      if (value) return value;
    } catch (e) { // the page is being loaded
      why = e.message.split('\n')[0];
    }
    await page.waitForTimeout(50);
  }
  throw new Error(`waited in vain: ${what} (${why})`);
}

export function check(ok, what) {
  if (!ok) throw new Error(what);
}

// accessible fails with what axe-core calls serious or critical.
export async function accessible(page, where) {
  await page.evaluate(rules); // not a script of the page, which would not be let in
  const { violations, passes } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations', 'passes'] }));
  check(passes.length > 5, `${where}: axe-core found hardly anything to look at`);
  const bad = violations.filter((v) => v.impact === 'serious' || v.impact === 'critical');
  check(!bad.length, `${where}: ${bad.map((v) => `${v.id} (${v.impact}): ${v.nodes.map((n) => `${n.html} ${n.failureSummary}`).join('; ')}`).join('\n')}`);
}

// narrow fails when something is wider than the window.
export async function narrow(page, where) {
  const wider = () => page.evaluate(() => {
    const all = [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5 && !e.closest('.scroll, .quiet, .skip, svg'));
    return document.documentElement.scrollWidth > innerWidth ? all.map((e) => e.outerHTML.slice(0, 120)) : [];
  });
  let wide = await wider();
  for (const end = Date.now() + PATIENCE; wide.length && Date.now() < end; wide = await wider()) await page.waitForTimeout(50); // curves follow the window
  check(!wide.length, `${where}: wider than the window: ${wide.join('\n')}`);
}
