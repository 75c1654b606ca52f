// A head is aligned: the program reads the meter a few times a second and tells each read.
import { api, clock, make, refusal } from './common.js';

const section = document.querySelector('[data-align]');
const byId = (id) => document.getElementById(id);
const gauge = document.querySelector('.gauge');
const button = byId('go');
const FULL = 10; // good reads in a row that lock

let stop = null; // ends the run that is on
let sound = null;
let lock = null; // keeps the screen on
let timer = 0;

// tones sounds notes of so many Hz, one after the other.
function tones(...notes) {
  if (!sound) return;
  notes.forEach((hertz, i) => {
    const start = sound.currentTime + i * 0.16;
    const note = sound.createOscillator();
    const volume = sound.createGain();
    note.frequency.value = hertz;
    volume.gain.setValueAtTime(0.0001, start);
    volume.gain.exponentialRampToValueAtTime(0.4, start + 0.02);
    volume.gain.exponentialRampToValueAtTime(0.0001, start + 0.15 + 0.1 * i);
    note.connect(volume).connect(sound.destination);
    note.start(start);
    note.stop(start + 0.4);
  });
}

const words = {
  ok: 'Good', silent: 'Nothing comes back', echo_only: 'Only the echo comes back', echo_missing: 'The echo is missing',
  no_frame: 'Bytes, but no frame', bad_checksums: 'Frames arrive damaged', asleep: 'The meter sleeps: press a button on it',
  throttled: 'The meter has closed its port', missed: 'One read without an answer', other_protocol: 'Another protocol',
  wrong_address: 'No answer at this address', foreign_frames: 'Answers to somebody else',
};

function verdict(text) {
  if (byId('verdict').textContent !== text) byId('verdict').textContent = text;
}

let locked = false;
let answers = []; // of the last reads, newest last
let began = false;

function level(percent, locks) {
  byId('level').textContent = percent;
  byId('fill').setAttribute('width', `${percent}%`);
  document.querySelector('.big').setAttribute('aria-label', `Link quality ${percent} percent`);
  gauge.dataset.level = percent >= 80 ? 3 : percent >= 40 ? 2 : 1;
  gauge.classList.toggle('locked', locks);
}

// dots are the last 20 reads, the newest on the right.
function dots() {
  const still = Array.from({ length: 20 - answers.length }, () => make('li'));
  byId('dots').replaceChildren(...still, ...answers.map((yes) => make('li', { class: yes ? 'yes' : 'no' })));
}

function show({ sample, frames }) {
  began = true;
  const percent = Math.round((100 * sample.good) / Math.max(sample.of, FULL)); // the first reads alone are no 100 %
  level(percent, sample.locked);
  if (sample.locked && !locked) {
    tones(660, 880, 1320);
    navigator.vibrate?.([180, 90, 180]);
  } else if (!sample.locked && locked) {
    tones(440, 330);
    navigator.vibrate?.(60);
  }
  locked = sample.locked;
  const better = sample.code === 'ok' && !locked;
  verdict(locked ? 'Locked: the head sits' : better ? 'It answers. Hold it still …' : words[sample.code] || `No answer (${sample.code})`);
  answers = [...answers, sample.code === 'ok'].slice(-20);
  dots();
  byId('echo').textContent = sample.echo ? 'heard' : 'not heard';
  byId('byte').textContent = sample.first_byte_s === null ? 'none came' : `${Math.round(sample.first_byte_s * 1000)} ms`;
  byId('run').textContent = `${Math.min(sample.row, 999)}`;
  if (document.querySelector('.last').open || frames.length) {
    byId('frames').replaceChildren(...[...frames].reverse().map((f) => make('li', {},
      make('span', { class: 'from' }, `${clock(new Date(f.time))} ${f.direction === 'to_meter' ? 'to the meter' : 'from the meter'}`),
      make('br'), make('code', {}, f.wire))));
  }
}

// stream reads the server-sent events of an answer's body.
async function stream(response, handle) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const event = { event: 'message', data: '' };
      for (const line of text.slice(0, end).split('\n')) {
        const colon = line.indexOf(':');
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).trim();
      }
      text = text.slice(end + 2);
      if (event.data) handle(event.event, JSON.parse(event.data));
    }
  }
}

async function wake() {
  try {
    lock = await navigator.wakeLock?.request('screen');
  } catch { /* the screen may go dark */ }
}

async function run() {
  const control = new AbortController();
  stop = () => control.abort();
  const length = byId('length').value;
  const until = Date.now() + parseInt(length, 10) * 1000;
  locked = began = false;
  answers = [];
  dots();
  button.textContent = 'Stop';
  byId('length').disabled = true;
  level(0, false);
  verdict('Waiting for the line …');
  timer = setInterval(() => { byId('left').textContent = `${Math.max(0, Math.ceil((until - Date.now()) / 1000))} s`; }, 250);
  let end = '';
  try {
    const r = await fetch(api(section.dataset.align, `align?length=${length}`), { method: 'POST', signal: control.signal });
    if (r.ok) {
      await stream(r, (event, data) => {
        if (event === 'sample') show(data);
        else if (event === 'failure') end = data.detail;
        else if (event === 'summary') end ||= data.locked ? 'The head sits. Done.' : data.reads ? `${data.title}. ${data.next_step}` : data.title;
      });
    } else {
      end = `Not now: ${await refusal(r)}`;
    }
    end ||= 'The connection to kmp2mqtt has ended.';
  } catch (e) {
    end = control.signal.aborted ? 'Stopped' : 'kmp2mqtt does not answer.';
  }
  clearInterval(timer);
  verdict(end);
  if (!began) byId('level').textContent = '–';
  byId('left').textContent = '–';
  byId('length').disabled = false;
  button.textContent = 'Start';
  lock?.release();
  lock = stop = null;
}

byId('drive').addEventListener('submit', (e) => {
  e.preventDefault();
  if (stop) {
    stop();
    return;
  }
  try {
    sound ||= new AudioContext(); // only now: browsers want a touch first
    sound.resume();
  } catch { /* then it is seen and felt */ }
  wake();
  run();
});
dots();
document.addEventListener('visibilitychange', () => { if (stop && !document.hidden) wake(); });
addEventListener('pagehide', () => stop?.());
button.disabled = false; // before, nothing would come of it
