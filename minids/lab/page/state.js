"use strict";
// What the page shows, in one place. A panel draws itself from it; whatever the visitor does changes it, and all panels follow.

const about = JSON.parse(document.getElementById("about").textContent);
const config = about.config;
const tokenizer = new Tokenizer(about.tokenizer);
const moeLayers = Array.from({ length: config.num_hidden_layers }, (_, l) => l).filter(
  (l) => l >= config.first_k_dense_replace,
);
const hasGroups = config.topk_method !== "greedy" && config.n_group > 1;

const state = {
  ids: [], // tokens of the text, the begin token among them
  entries: [], // by position, what the engine said about each; shorter than ids while it is reading
  next: null, // the likeliest tokens after the text
  token: null, // position that was picked; null: the newest
  hover: null, // position that is pointed at
  layer: config.num_hidden_layers - 1,
  head: 0,
  expert: null,
  over: null, // [layer, expert] that is pointed at
  colour: "expert",
  temperature: 0.6,
  seed: 1,
  guesses: 0,
  topk_group: config.topk_group,
  bias_off: false,
  biases: [], // [layer, expert, amount]
  mistake: null, // switched on for the whole page
  compared: null, // the mistake that is looked at
  speed: 45,
  playing: false, // tokens are being written
  busy: false, // … or read
  sizes: "here",
  known: "DeepSeek-V3",
  context: 20000,
  conversations: 1,
  wall: "here",
  story: 0,
  seen: null, // what the engine found for `shown()` and `layer`: heads, latents
};

const byId = (id) => document.getElementById(id);
const panels = [];
let drawing = false;
let drawingLater = 0;
let unsized = true; // until all panels have been drawn once with a token in them

/** Position of the token that all panels show: pointed at, picked, or the newest. */
function shown() {
  const newest = state.entries.length - 1;
  return Math.min(state.hover ?? state.token ?? newest, newest);
}

const entryShown = () => state.entries[shown()];
const routeShown = () => entryShown()?.routes[state.layer] ?? null;

function drawNow(one) {
  one.stale = false;
  one.draw();
}

/** Draw what is on the screen on the next frame, and what is not as soon as nothing has changed for a moment. The first time
  all of them, so that the page has its length before one scrolls, and a button is where it was when one presses it. */
function redraw() {
  for (const one of panels) one.stale = true;
  clearTimeout(drawingLater);
  drawingLater = setTimeout(() => panels.filter(({ stale }) => stale).forEach(drawNow), 250);
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    panels.filter(({ visible }) => visible || unsized).forEach(drawNow);
    unsized &&= !state.seen;
  });
}

function change(patch) {
  Object.assign(state, patch);
  redraw();
}

/** Have `draw` called when something has changed and the section is on the screen. */
function panel(id, draw) {
  const entry = { section: id && byId(id), visible: !id, draw };
  panels.push(entry);
  if (!id) return;
  new IntersectionObserver(
    ([{ isIntersecting }]) => {
      entry.visible = isIntersecting;
      if (isIntersecting && entry.stale) redraw();
    },
    { rootMargin: "200px" },
  ).observe(entry.section);
}

addEventListener("beforeprint", () => panels.forEach(drawNow));

// The engine in its own thread. Two more, made when they are first needed, compare and test, so that none ends another's work.

const workerSource = `${byId("engine").textContent}\n${byId("worker").textContent}`;
const answers = { writer: new Map(), checker: new Map(), tester: new Map() };
const workers = {};

function worker(name) {
  if (!workers[name]) {
    const made = new Worker(URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" })));
    made.onmessage = ({ data }) => answers[name].get(data.type)?.(data);
    made.onerror = (event) => (byId("status").textContent = `The engine stopped: ${event.message}`);
    made.postMessage({ type: "load", config, tensors: about.tensors, base64: byId("weights").textContent });
    workers[name] = made;
  }
  return workers[name];
}

const ask = (name, message) => worker(name).postMessage(message);
const listen = (name, type, answer) => answers[name].set(type, answer);

let writing = 0; // number of the newest request to write; answers to older ones are not listened to
let afterWriting = null; // what the tour wants to be done once a text is there

const variation = () => {
  const { topk_group, bias_off, biases, mistake } = state;
  return { topk_group, bias_off, biases, mistake };
};

/** Milliseconds between two passes at this place of the speed slider; 0: as fast as the engine goes. */
const pace = () => (state.speed >= 100 ? 0 : 1000 / (1.5 * 40 ** (state.speed / 100)));

/** Read the text as it stands and add `more` tokens to it, `quick`: whatever the speed slider says. */
function write(more, quick = false) {
  const most = Math.min(state.ids.length + more, about.longest);
  const { temperature, seed, guesses } = state;
  writing += 1;
  change({ busy: true, playing: more > 0 && state.ids.length < about.longest });
  const settings = { ...variation(), temperature, seed, guesses, most, stop: tokenizer.eos, pace: quick ? 0 : pace() };
  ask("writer", { type: "write", id: writing, tokens: state.ids, known: state.entries.length, settings });
}

listen("writer", "tokens", ({ id, entries, next, done, rate }) => {
  if (id !== writing) return; // of a text that has been changed since
  for (const entry of entries) {
    state.entries[entry.position] = entry;
    state.ids[entry.position] = entry.id;
  }
  if (done) state.playing = state.busy = false;
  change({ next, rate });
  if (done) afterWriting?.();
  askForSeen();
});

/** What the engine sees at the token shown, in the layer shown. */
let asked = "";
function askForSeen() {
  const at = shown();
  if (at < 0) return change({ seen: null });
  const key = [at, state.layer, state.entries.length > at && state.entries[at].id, writing].join();
  if (key === asked) return undefined;
  asked = key;
  return ask("writer", { type: "inspect", id: key, position: at, layer: state.layer });
}

listen("writer", "inspected", (seen) => {
  if (seen.id === asked) change({ seen });
});

/** Other tokens from position `from` on: what was known of them is forgotten. */
function replaceTail(from, ids) {
  state.ids = [...state.ids.slice(0, from), ...ids].slice(0, about.longest);
  state.entries.length = Math.min(state.entries.length, from);
}

/** The whole text anew: with `ids`, or with a string. */
function setText(text, more = 0, quick = false) {
  const begin = tokenizer.bos === null ? [] : [tokenizer.bos];
  replaceTail(0, [...begin, ...tokenizer.encode(text)]);
  change({ token: null, hover: null, next: null });
  write(more, quick);
}

/** The text as a string: what stands in the text field. A few characters cannot stand there as they are. */
const fieldTexts = (ids) => tokenizer.decodeEach(ids).map((text) => text.replace(/\r/g, "␍").replace(/\0/g, "␀"));
