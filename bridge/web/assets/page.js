// Makes the page live. The server renders; when a meter has news, its card is fetched again
// and what has changed in it is put in place.
import { api, at, clock, convert, now, refusal, setNow, setUnit, spell, unit } from './common.js';

const view = document.documentElement.dataset.view;
const byId = (id) => document.getElementById(id);
const cardOf = (name) => [...document.querySelectorAll('.card[data-meter]')].find((c) => c.dataset.meter === name);
const charts = view === 'values' ? await import('./charts.js') : null;

// Regions that the server renders, as it rendered them: what is shown differs by unit and time zone.
const rendered = new Map();

function remember(within) {
  for (const e of within.querySelectorAll('[data-live]')) {
    if (!rendered.has(e.id)) rendered.set(e.id, e.outerHTML);
  }
}

// dress puts times and units of new elements into those of the one who looks.
function dress(within) {
  for (const t of within.querySelectorAll('time[data-clock]')) {
    if (t.dateTime) t.textContent = clock(new Date(t.dateTime));
  }
  measure(within);
}

function measure(within) {
  const wanted = unit();
  for (const e of within.querySelectorAll('[data-unit]')) {
    const number = e.querySelector('b');
    e.dataset.text ??= number.textContent;
    const text = wanted && convert(e.dataset.text, e.dataset.unit, wanted);
    number.textContent = text || e.dataset.text;
    e.querySelector('i').textContent = text ? wanted : e.dataset.unit;
    e.classList.toggle('long', number.textContent.length > 8);
  }
}

function tick() {
  const at = now();
  for (const e of document.querySelectorAll('[data-ago]')) e.textContent = spell(at - e.dataset.ago);
  for (const e of document.querySelectorAll('[data-in]')) {
    e.textContent = e.dataset.in > at ? `in ${spell(e.dataset.in - at)}` : 'now';
  }
}

function synchronize(within) {
  const e = within.querySelector('[data-now]');
  if (e) setNow(e.dataset.now);
}

let said = 0;
function say(text) {
  byId('say').textContent = text;
  said = Date.now();
}

// summary is a meter's newest values in a sentence.
function summary(card) {
  const texts = [...card.querySelectorAll('.now .num')].slice(0, 2).map((e) => e.textContent.trim().replace(/\s+/g, ' '));
  return texts.join(', ');
}

// replace puts what has changed in place of what was there.
function replace(fresh) {
  synchronize(fresh);
  for (const e of fresh.querySelectorAll('[data-live]')) {
    const old = byId(e.id);
    if (!old || rendered.get(e.id) === e.outerHTML) continue;
    const selected = getSelection();
    if (!selected.isCollapsed && old.contains(selected.anchorNode)) continue; // somebody is about to copy it
    rendered.set(e.id, e.outerHTML);
    const held = old.contains(document.activeElement) ? document.activeElement.closest('[id]').id : '';
    for (const value of e.querySelectorAll('[data-key]')) {
      const was = old.querySelector(`[data-key="${CSS.escape(value.dataset.key)}"]`);
      const text = value.querySelector('b').textContent;
      if (was && (was.dataset.text ?? was.querySelector('b').textContent) !== text) value.classList.add('changed');
    }
    const chip = e.querySelector('.chip')?.textContent;
    if (chip && chip !== old.querySelector('.chip')?.textContent) say(`${fresh.querySelector('.card-title').textContent}: ${chip}`);
    dress(e);
    old.replaceWith(e);
    if (held) byId(held)?.querySelector('button, a')?.focus({ preventScroll: true });
  }
  tick();
}

async function get(query) {
  const r = await fetch(at(query), { headers: { Accept: 'text/html' } });
  if (!r.ok) throw new Error(`${r.status}`);
  return new DOMParser().parseFromString(await r.text(), 'text/html');
}

// renew shows what is new of these meters. A meter that is not on the page yet, or many at
// once: all of it.
const due = new Set();
let renewing = false;
async function renew() {
  if (renewing) return;
  renewing = true;
  while (due.size) {
    const names = [...due];
    due.clear();
    try {
      const shown = names.filter(cardOf);
      const single = new URLSearchParams(location.search).get('meter');
      const strangers = !single && names.some((n) => n && !cardOf(n));
      if (view === 'expert' || shown.length > 3 || strangers) {
        const fresh = await get(location.search || '?');
        const cards = (doc) => [...doc.querySelectorAll('.card[data-meter]')].map((c) => c.dataset.meter).join();
        if (strangers && cards(fresh) !== cards(document)) {
          byId('main').replaceWith(fresh.getElementById('main'));
          rendered.clear();
          begin();
        } else {
          replace(fresh);
        }
      } else if (shown.length) {
        for (const name of shown) replace(await get(`?part=${encodeURIComponent(name)}`));
      } else {
        const any = document.querySelector('.card[data-meter]');
        if (any) replace(await get(`?part=${encodeURIComponent(any.dataset.meter)}`));
      }
      for (const name of shown) {
        charts?.renew(name);
        const card = cardOf(name);
        if (card.tagName === 'SECTION' && view === 'values' && Date.now() - said > 60000 && summary(card)) {
          say(`${card.querySelector('.card-title').textContent}: ${summary(card)}`);
        }
      }
    } catch { /* the connection is lost: it says so itself, and all is renewed when it is back */ }
    await new Promise((done) => setTimeout(done, 250));
  }
  renewing = false;
}

// news has meters renewed soon; what comes together is one renewal.
let soon = 0;
function news(name) {
  due.add(name);
  clearTimeout(soon);
  soon = setTimeout(renew, 80);
}

let stream = null;
let alarm = 0;
function lost() {
  alarm ||= setTimeout(() => { byId('lost').hidden = false; say(byId('lost').textContent); }, 2500);
}

function listen() {
  if (stream || document.hidden) return;
  stream = new EventSource(at('api/v1/events'));
  stream.onopen = () => {
    clearTimeout(alarm);
    alarm = 0;
    if (!byId('lost').hidden) say('Connected again.');
    byId('lost').hidden = true;
    news('');
  };
  stream.onerror = () => {
    lost();
    if (stream?.readyState === EventSource.CLOSED) { // refused, perhaps by a proxy: the browser does not try again
      stream = null;
      setTimeout(listen, 5000);
    }
  };
  for (const kind of ['state', 'availability', 'diagnostics', 'diagnosis', 'info', 'health']) {
    stream.addEventListener(kind, (e) => news(JSON.parse(e.data).meter || ''));
  }
}

function hush() {
  stream?.close();
  stream = null;
}

// read asks a meter and says what came, or why nothing did.
async function read(form) {
  const card = form.closest('.card');
  const button = form.querySelector('button');
  const answer = card.querySelector('.answer');
  if (button.getAttribute('aria-busy') === 'true') return;
  const tell = (text, no) => { answer.textContent = text; answer.classList.toggle('no', no); };
  button.setAttribute('aria-busy', 'true');
  tell('Asking the meter …', false);
  try {
    const r = await fetch(api(card.dataset.meter, 'read'), { method: 'POST' });
    if (r.ok) {
      const { data } = await r.json();
      replace(await get(`?part=${encodeURIComponent(card.dataset.meter)}`));
      tell(`The meter answered at ${clock(new Date(data?.time || Date.now()))}${summary(card) ? `: ${summary(card)}` : ''}.`, false);
    } else {
      tell(`${r.status === 429 ? 'Not now' : 'The meter could not be read'}: ${await refusal(r)}`, true);
    }
  } catch {
    tell('kmp2mqtt does not answer. Is it running, and is the network there?', true);
  }
  button.removeAttribute('aria-busy');
}

// copy works on plain http as well, where browsers hide the clipboard.
async function copy(button) {
  const text = button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'quiet';
    button.after(area);
    area.select();
    document.execCommand('copy');
    area.remove();
    button.focus();
  }
  button.textContent = 'Copied';
  say('Copied.');
  setTimeout(() => { button.textContent = 'Copy'; }, 2000);
}

// unfold fetches what is inside a meter of a long list.
async function unfold(card) {
  const later = card.querySelector('[data-later]');
  if (!card.open || !later || !cardOf(card.dataset.meter)) return;
  try {
    const fresh = await get(`?part=${encodeURIComponent(card.dataset.meter)}`);
    const body = fresh.querySelector('.card .card-body');
    if (!body) return;
    later.replaceWith(body);
    begin();
  } catch {
    lost();
  }
}

function find(words) {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  let found = 0;
  for (const card of document.querySelectorAll('.list .card')) {
    const text = card.querySelector('.row').textContent.toLowerCase();
    card.hidden = !wanted.every((w) => text.includes(w));
    found += card.hidden ? 0 : 1;
  }
  byId('none').hidden = found > 0;
  say(`${found} meters`);
}

// begin takes up what is on the page, at first and after it was replaced.
function begin() {
  remember(document);
  dress(document);
  for (const e of document.querySelectorAll('.unit, .filter')) e.hidden = false;
  const filter = byId('filter');
  if (filter?.value) find(filter.value);
  charts?.begin();
  tick();
}

synchronize(document);
begin();
setInterval(tick, 1000);

document.addEventListener('submit', (e) => {
  if (!e.target.matches('form.read')) return;
  e.preventDefault();
  read(e.target);
});
document.addEventListener('click', (e) => {
  const button = e.target.closest('[data-copy]');
  if (button) copy(button);
});
document.addEventListener('toggle', (e) => {
  if (e.target.matches('.list > .card')) unfold(e.target);
  else if (e.target.matches('.tables')) charts?.begin();
}, true);
byId('filter')?.addEventListener('input', (e) => find(e.target.value));
const select = byId('unit');
if (select) {
  select.value = unit();
  select.addEventListener('change', () => {
    setUnit(select.value);
    measure(document);
    charts?.redraw();
  });
}
if (view === 'align') {
  import('./align.js');
} else {
  document.addEventListener('visibilitychange', () => (document.hidden ? hush() : listen()));
  addEventListener('pagehide', hush);
  addEventListener('pageshow', listen);
  listen();
}
