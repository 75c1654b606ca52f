// Takes the pictures of the page for the documents: node screenshots.mjs URL DIRECTORY.
import { join } from 'node:path';
import { launch, open, until } from './browser.mjs';

const [url, directory] = process.argv.slice(2);
const browser = await launch();
const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2 };

async function values(name, options, size) {
  const page = await open(browser, url, { ...options, reducedMotion: 'reduce' });
  await until(page, 'bars', () => document.querySelectorAll('.plot').length === 5 && document.querySelectorAll('.plot')[4].plot.data[0].length > 1);
  await page.screenshot({ path: join(directory, name), ...size });
  await page.close();
}

try {
  await values('page.png', { colorScheme: 'light', viewport: { width: 1120, height: 800 }, deviceScaleFactor: 1.5 }, { fullPage: true });
  await values('page-phone.png', { colorScheme: 'dark', ...phone }, {});
  const page = await open(browser, `${url}?view=align`, { colorScheme: 'light', ...phone, reducedMotion: 'reduce' });
  await page.getByRole('button', { name: 'Start' }).click();
  await until(page, 'it locks', () => document.querySelector('.gauge.locked'));
  await page.screenshot({ path: join(directory, 'align.png') });
  await page.getByRole('button', { name: 'Stop' }).click();
  await until(page, 'it stops', () => document.getElementById('verdict').textContent === 'Stopped');
  await page.close();
} finally {
  await browser.close();
}
