// What the views share: where the page is, units, times.

// root is where the page is, also below a proxy's prefix and without a slash at its end.
const root = new URL('..', import.meta.url);
root.username = root.password = root.search = '';

// at is the address of something that is served beside the page.
export const at = (path) => new URL(path, root).href;

// api is the address of something of one meter.
export const api = (meter, what) => at(`api/v1/meters/${encodeURIComponent(meter)}/${what}`);

const joules = {
  J: 1n, kJ: 10n ** 3n, MJ: 10n ** 6n, GJ: 10n ** 9n,
  Wh: 3600n, kWh: 3600n * 10n ** 3n, MWh: 3600n * 10n ** 6n, GWh: 3600n * 10n ** 9n,
};

const KEY = 'kmp2mqtt.unit';

// unit is the unit of energy that the owner has chosen, '' for the meter's own.
export function unit() {
  try {
    return localStorage.getItem(KEY) || '';
  } catch { // a browser that keeps nothing
    return document.getElementById('unit')?.value || '';
  }
}

export function setUnit(name) {
  try {
    localStorage.setItem(KEY, name);
  } catch { /* then it is for this page alone */ }
}

// convert says an amount of energy in another unit: exact arithmetic, rounded once, to as
// many decimals as the meter's last digit is worth. null: this is no energy.
export function convert(text, from, to) {
  const digits = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text);
  if (!digits || !joules[from] || !joules[to]) return null;
  if (from === to) return text;
  const fraction = digits[3] || '';
  const amount = BigInt(digits[2] + fraction) * joules[from];
  const one = joules[to] * 10n ** BigInt(fraction.length);
  let decimals = 0;
  while (one > joules[from] * 10n ** BigInt(decimals)) decimals++;
  const rounded = (2n * amount * 10n ** BigInt(decimals) + one) / (2n * one);
  const all = rounded.toString().padStart(decimals + 1, '0');
  const whole = all.slice(0, all.length - decimals);
  return (rounded ? digits[1] : '') + whole + (decimals ? '.' + all.slice(-decimals) : '');
}

// factor is what a number is multiplied with to be drawn in another unit; 0: it cannot be.
export const factor = (from, to) => (joules[from] && joules[to] ? Number(joules[from]) / Number(joules[to]) : 0);

// now is the server's time in milliseconds; the clock here may be wrong by some.
let behind = 0;
export const now = () => Date.now() - behind;
export function setNow(server) {
  behind = Date.now() - server;
}

// spell is a duration in milliseconds to the unit that matters, as the server says it.
export function spell(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

const two = (n) => String(n).padStart(2, '0');
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

// hour, day and clock are a time in the browser's time zone: "18:02", "21 Nov", and "18:02:05"
// with the day where that is not today.
export const hour = (d) => `${two(d.getHours())}:${two(d.getMinutes())}`;
export const day = (d) => `${d.getDate()} ${months[d.getMonth()]}`;
export function clock(d) {
  const time = `${hour(d)}:${two(d.getSeconds())}`;
  return d.toDateString() === new Date().toDateString() ? time : `${day(d)} ${time}`;
}

// refusal is why the program refused something, and when it may be asked again.
export async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const why = body.error || body.detail || `the program answered with status ${response.status}`;
  const wait = Number(response.headers.get('Retry-After')) * 1000;
  const when = wait ? ` It may be asked again at ${clock(new Date(Date.now() + wait))}, in ${spell(wait)}.` : '';
  return `${why.replace(/;? try again in \S+$/, '').replace(/\.$/, '')}.${when}`;
}

// make builds an element; children are elements and texts.
export function make(name, attributes, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes || {})) {
    if (v !== undefined) e.setAttribute(k, v);
  }
  e.append(...children);
  return e;
}
