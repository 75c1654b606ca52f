// Curves of the last day and bars of energy, drawn by uPlot. Unknown is a gap.
import { api, day, factor, hour, make, now, unit } from './common.js';

const HOUR = 3600;
const DAY = 24 * HOUR;
const shown = new Map(); // by meter: { box, data, plots, fetched, timer }
const round = new Intl.NumberFormat('en', { maximumSignificantDigits: 4, useGrouping: false });
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function hue(key) {
  return ['power', 'flow', 'supply', 'return'].find((h) => key.startsWith(h)) || 'other';
}

const visible = new IntersectionObserver((entries) => {
  for (const e of entries) {
    if (e.isIntersecting) load(e.target.dataset.charts);
  }
}, { rootMargin: '800px' });

const sizes = new ResizeObserver((entries) => {
  for (const e of entries) {
    const plot = e.target.plot;
    if (plot && e.contentRect.width > 0) plot.setSize({ width: Math.floor(e.contentRect.width), height: Math.floor(e.contentRect.height) });
  }
});

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);

// begin takes up the charts that are on the page.
export function begin() {
  for (const box of document.querySelectorAll('[data-charts]')) {
    const s = shown.get(box.dataset.charts);
    if (s?.box === box) {
      tables(s);
      continue;
    }
    shown.set(box.dataset.charts, { name: box.dataset.charts, box, plots: [], fetched: 0 });
    box.hidden = false; // what is hidden does not come into sight
    visible.observe(box);
  }
}

// renew has a meter's charts fetched again, at most every five seconds.
export function renew(name) {
  const s = shown.get(name);
  if (!s?.fetched || !s.box.isConnected || s.timer) return;
  s.timer = setTimeout(() => { s.timer = 0; s.stale = true; load(name); }, Math.max(0, s.fetched + 5000 - Date.now()));
}

// redraw draws everything again, in other colours or units.
export function redraw() {
  for (const s of shown.values()) {
    if (!s.data || !s.box.isConnected) continue;
    clear(s);
    draw(s);
  }
}

async function load(name) {
  const s = shown.get(name);
  if (!s || (s.fetched && !s.stale)) return;
  s.fetched = Date.now();
  s.stale = false;
  try {
    const r = await fetch(api(name, 'chart'));
    if (!r.ok) throw new Error(`${r.status}`);
    s.data = await r.json();
  } catch {
    s.stale = true; // the next news tries again
    return;
  }
  draw(s);
}

function clear(s) {
  for (const p of s.plots) {
    sizes.unobserve(p.plot.root.parentNode);
    p.plot.destroy();
  }
  s.plots = [];
  s.shape = '';
  s.box.replaceChildren();
}

// groups are the curves that share an axis.
function groups(data) {
  const list = [];
  for (const series of data.series) {
    const same = list.find((g) => g.unit === series.unit);
    if (same) same.series.push(series);
    else list.push({ unit: series.unit, series: [series] });
  }
  const place = (g) => ['power', 'supply', 'return', 'flow', 'other'].indexOf(hue(g.series[0].key));
  list.sort((a, b) => place(a) - place(b));
  for (const g of list) g.title = g.series.length === 1 ? g.series[0].title : g.unit === '°C' ? 'Temperatures' : g.series.map((x) => x.title).join(', ');
  return list;
}

// gaps are times and values with a hole where nothing was read for long.
function gaps(times, values) {
  const steps = times.slice(1).map((t, i) => t - times[i]).sort((a, b) => a - b);
  const long = 4 * (steps[Math.floor(steps.length / 2)] || HOUR);
  const out = [[], ...values.map(() => [])];
  times.forEach((t, i) => {
    if (i && t - times[i - 1] > long) {
      out[0].push(times[i - 1] + 1);
      values.forEach((_, k) => out[k + 1].push(null));
    }
    out[0].push(t);
    values.forEach((v, k) => out[k + 1].push(v[i]));
  });
  return out;
}

function draw(s) {
  const { data } = s;
  const nothing = data.times.length + data.hours.length + data.days.length === 0;
  s.box.hidden = tableBox(s).closest('details').hidden = nothing;
  if (nothing) return;
  const shape = JSON.stringify([data.series.map((x) => [x.key, x.title]), data.unit, unit()]);
  if (s.shape !== shape) clear(s);
  const begun = s.plots.length > 0;
  const parts = [];
  for (const g of groups(data)) {
    parts.push({ title: g.title, unit: g.unit, series: g.series, data: gaps(data.times, g.series.map((x) => x.values)) });
  }
  const times = factor(data.unit, unit());
  const shownUnit = times ? unit() : data.unit;
  const bars = (list) => [list.map((b) => Date.parse(b.start) / 1000), list.map((b) => (b.energy === null ? null : b.energy * (times || 1)))];
  if (data.unit) {
    parts.push({ title: `${data.title || 'Energy'} per hour`, unit: shownUnit, step: HOUR, span: 48, data: bars(data.hours), empty: 'The first bar stands here after a full hour.' });
    parts.push({ title: `${data.title || 'Energy'} per day`, unit: shownUnit, step: DAY, span: 31, data: bars(data.days), empty: 'The first bar stands here after a full day.' });
  }
  if (!begun) {
    s.box.replaceChildren(...parts.map((p, i) => figure(s, p, i, parts.length)));
    s.shape = shape;
  }
  s.plots.forEach((p, i) => fill(p, parts[i]));
  tables(s, parts);
}

function figure(s, part, index, count) {
  const readout = make('span', { class: 'readout' });
  const head = make('h3', {}, part.title, ' ', make('i', {}, part.unit));
  const plot = make('div', { class: 'plot', role: 'img' });
  const f = make('figure', { class: count % 2 && index === 0 ? 'chart wide' : 'chart' }, make('figcaption', {}, head, readout), plot);
  const p = { part, readout, box: plot, name: s.name };
  p.plot = new uPlot(options(p), part.data, plot);
  plot.plot = p.plot;
  sizes.observe(plot);
  s.plots.push(p);
  return f;
}

function options(p) {
  const { part } = p;
  const [soft, line] = [colour('soft'), colour('line')];
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const bars = Boolean(part.step);
  const low = bars || part.unit !== '°C';
  return {
    width: 300,
    height: 176,
    padding: [8, 16, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 8 }, sync: bars ? undefined : { key: p.name } },
    scales: {
      x: { time: true, range: () => span(p.part) },
      y: { range: (_, min, max) => height(min, max, low) },
    },
    axes: [
      { stroke: soft, font, grid: { show: false }, ticks: { stroke: line, size: 4 }, gap: 4, size: 28, space: 56, values: (_, splits, __, ___, step) => splits.map((t) => label(t, step)) },
      { stroke: soft, font, grid: { stroke: line, width: 1 }, ticks: { show: false }, gap: 6, size: (u, values) => 14 + 7.2 * Math.max(1, ...(values || ['']).map((v) => v.length)), space: 34, values: (_, splits) => splits.map((v) => round.format(v)) },
    ],
    series: [{}, ...(part.series || [{ key: 'power' }]).map((x, i) => {
      const ink = colour(bars ? 'power' : hue(x.key));
      return bars
        ? { stroke: ink, fill: `${ink}b0`, width: 0, paths: uPlot.paths.bars({ size: [0.72, 40], align: 1, radius: 0.12 }), points: { show: false } }
        : { stroke: ink, width: 2, fill: i === 0 && low ? `${ink}1c` : undefined, points: { show: part.data[0].length < 3, size: 6, fill: ink } };
    })],
    hooks: { setCursor: [(u) => tell(p, u.cursor.idx)] },
  };
}

// span is what the time axis shows.
function span(part) {
  const times = part.data[0];
  if (part.step) {
    const last = times[times.length - 1] ?? now() / 1000;
    return [last - (part.span - 1) * part.step, last + part.step];
  }
  const last = Math.max(now() / 1000, times[times.length - 1] ?? 0); // an outage that lasts is a gap at the end
  return [Math.min(Math.max(times[0] ?? last, last - DAY), last - 600), last];
}

function height(min, max, low) {
  if (min === null || max === null) return [0, 1];
  if (low) return [Math.min(0, min * 1.1), max > 0 ? max * 1.12 : 1];
  const room = Math.max((max - min) * 0.12, 1);
  return [min - room, max + room];
}

function label(t, step) {
  const d = new Date(t * 1000);
  if (step >= DAY || (d.getHours() === 0 && d.getMinutes() === 0 && step >= HOUR)) return day(d);
  return step < 60 ? `${hour(d)}:${String(d.getSeconds()).padStart(2, '0')}` : hour(d);
}

// when says which time or span of time a value belongs to.
function when(part, t) {
  const d = new Date(t * 1000);
  if (part.step === DAY) return day(d);
  return part.step ? `${day(d)} ${hour(d)}–${hour(new Date((t + HOUR) * 1000))}` : hour(d);
}

const number = (v, decimals) => (v === null || v === undefined ? 'unknown' : decimals === undefined ? round.format(v) : v.toFixed(decimals));

// decimals are as many as the numbers need, so that they stand in columns.
const decimals = (lists) => Math.max(0, ...lists.flat().filter((v) => v !== null).map((v) => (round.format(v).split('.')[1] || '').length));

// tell shows the values under the cursor, without one the newest.
function tell(p, index) {
  const { part } = p;
  const i = index ?? part.data[0].length - 1;
  const texts = [];
  if (i >= 0) {
    texts.push(`${when(part, part.data[0][i])} `);
    part.data.slice(1).forEach((values, k) => {
      if (part.series?.length > 1) texts.push(make('span', { class: `key ${hue(part.series[k].key)}`, title: part.series[k].title }));
      texts.push(make('b', {}, number(values[i], part.decimals)));
    });
    if (part.data.length > 1) texts.push(` ${part.unit}`);
  }
  p.readout.replaceChildren(...texts);
}

function fill(p, part) {
  p.part = part;
  part.decimals = decimals(part.data.slice(1));
  p.plot.setData(part.data);
  tell(p, p.plot.cursor.idx);
  const empty = !part.data.slice(1).some((v) => v.some((x) => x !== null));
  p.box.querySelector('.none')?.remove();
  p.plot.root.hidden = empty;
  if (empty) p.box.append(make('p', { class: 'none' }, part.empty || 'The curve begins with the first readings.'));
  p.box.setAttribute('aria-label', empty ? `${part.title}: nothing yet` : `${part.title} in ${part.unit}: ${part.data.slice(1).map((v, k) => {
    const known = v.filter((x) => x !== null);
    if (!known.length) return 'unknown';
    return `${part.series?.length > 1 ? `${part.series[k].title} ` : ''}from ${number(Math.min(...known))} to ${number(Math.max(...known))}, last ${number(v[v.length - 1])}`;
  }).join('; ')}. The numbers are in the tables below.`);
}

const tableBox = (s) => s.box.closest('.card').querySelector('[data-tables]');

// tables say the same in numbers, when somebody has opened them.
function tables(s, parts = s.parts) {
  s.parts = parts;
  const box = tableBox(s);
  if (!box.closest('details').open || !parts) return;
  const one = (title, head, rows) => make('table', {}, make('caption', {}, title),
    make('thead', {}, make('tr', {}, ...head.map((h, i) => make('th', { scope: 'col', class: i ? 'n' : undefined }, h)))),
    make('tbody', {}, ...rows.map((r) => make('tr', {}, ...r.map((c, i) => (i ? make('td', { class: 'n' }, c) : make('th', { scope: 'row' }, c)))))));
  const curves = parts.filter((p) => !p.step);
  const list = [];
  if (curves.length) {
    const seen = new Set();
    const rows = [];
    const { times, series } = s.data;
    const digits = series.map((x) => decimals([x.values]));
    for (let i = times.length - 1; i >= 0 && rows.length < 48; i--) { // the newest of each half hour
      const half = Math.floor(times[i] / 1800);
      if (seen.has(half)) continue;
      seen.add(half);
      rows.push([when({}, times[i]), ...series.map((x, k) => number(x.values[i], digits[k]))]);
    }
    list.push(one('The last day, each half hour', ['Time', ...series.map((x) => `${x.title}, ${x.unit}`)], rows));
  }
  for (const p of parts.filter((x) => x.step)) {
    list.push(one(p.title, [p.step === DAY ? 'Day' : 'Hour', p.unit], p.data[0].map((t, i) => [when(p, t), number(p.data[1][i], p.decimals)]).reverse()));
  }
  const scrolled = box.firstElementChild?.scrollTop || 0;
  const scroll = make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'The curves as tables' }, make('div', { class: 'pair' }, ...list));
  const focused = box.contains(document.activeElement);
  box.replaceChildren(scroll);
  scroll.scrollTop = scrolled;
  if (focused) scroll.focus({ preventScroll: true });
}
