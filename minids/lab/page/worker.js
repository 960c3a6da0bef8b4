"use strict";
// The engine's own thread: it works in slices of a few milliseconds, so that it hears at once when it is asked for something else.

const SLICE = 20; // milliseconds
let config, weights; // as loaded
let sequence, variant; // what is read, and by which variation of the model
let job = null;
let waiting = null; // the timer of its next slice
let spent = 0; // milliseconds of computing on this job, this slice left out
let sliceBegan = 0;

/** The model as the sliders want it: other groups kept, other biases, a mistake. The weights themselves stay as they are. */
function varied({ topk_group, bias_off, biases, mistake }) {
  const c = { ...config, topk_group };
  const w = Object.create(weights);
  for (const name of Object.keys(weights).filter((n) => n.endsWith("e_score_correction_bias"))) {
    const layer = Number(name.split(".")[2]);
    const data = bias_off ? new Float32Array(c.n_routed_experts) : weights[name].data.slice();
    for (const [at, expert, amount] of biases) if (at === layer) data[expert] += amount;
    w[name] = { shape: weights[name].shape, data };
  }
  mistaken(mistake, c);
  return new Sequence(w, c);
}

/** The sequence for these settings, with as much of `tokens` read as it has read and the page has heard of (`known`). */
function prepared(tokens, known, settings) {
  const key = JSON.stringify([settings.topk_group, settings.bias_off, settings.biases, settings.mistake]);
  if (key !== variant) [variant, sequence] = [key, varied(settings)];
  let same = 0;
  while (same < tokens.length && sequence.tokens[same] === tokens[same]) same++;
  sequence.rewind(Math.min(same, known));
  return sequence;
}

/** Write: read the text, continue it, and send what is known of each token as it comes. */
function* writing(id, tokens, known, settings) {
  const going = prepared(tokens, known, settings);
  let batch = [];
  let last = 0;
  let count = 0;
  const send = (done) => {
    const next = going.logits ? likeliest(going.logits).best : null;
    postMessage({
      type: "tokens",
      id,
      entries: batch,
      next,
      done,
      rate: (1000 * count) / (spent + performance.now() - sliceBegan),
    });
    batch = [];
  };
  for (const entry of follow(going, tokens, settings)) {
    if (settings.pace && entry.pass !== last) {
      // the tokens of one pass arrive together
      if (batch.length) send(false);
      yield settings.pace;
      last = entry.pass;
    }
    batch.push(entry);
    count += 1;
    if ((yield 0) && batch.length) send(false);
  }
  send(true);
}

/** All about one token in one layer: what its heads attended to, its latent before and after, its RoPE key before and after. */
function inspected(position, layer) {
  const watches = sequence.caches.map(() => ({ heads: [] }));
  hiddenState(sequence.tokens[position], sequence.w, sequence.c, sequence.caches, position, watches);
  const { heads, compressed, c_kv, k_rope } = watches[layer];
  return { heads, compressed, c_kv, k_rope };
}

/** Keys and values of all heads as MHA would have to keep them, (T, H·(d_h+d_v)): [2, 5]. */
function expanded(layer) {
  const up = sequence.w[`model.layers.${layer}.self_attn.kv_b_proj.weight`];
  const d_c = sequence.c.kv_lora_rank;
  return sequence.caches[layer].rows
    .slice(0, sequence.tokens.length)
    .map((row) => Float32Array.from(matmul(row.subarray(0, d_c), up)));
}

/** The same text with and without a mistake: its loss, other choices of experts, guesses that were right, how it goes on. */
function* comparing(id, { mistake, tokens, more, settings }) {
  const sides = [];
  for (const name of [null, mistake]) {
    const one = varied({ ...settings, mistake: name });
    const entries = [];
    const all = { temperature: 0, seed: 0, guesses: 0, most: tokens.length + more, stop: settings.stop };
    for (const entry of follow(one, tokens, all)) {
      entries.push(entry);
      yield 0;
    }
    const read = entries.slice(0, tokens.length);
    const judged = read.filter((e) => e.logProbability !== null);
    const guessed = read.filter((e) => e.guess);
    sides.push({
      loss: -judged.reduce((sum, e) => sum + e.logProbability, 0) / Math.max(judged.length, 1),
      losses: read.map((e) => e.logProbability),
      right: guessed.filter((e) => e.guess.stood).length / Math.max(guessed.length, 1),
      chosen: read.map((e) => e.routes.map((r) => r && r.chosen)),
      numbers: one.caches[0].rows[0].length,
      continuation: entries.slice(tokens.length).map((e) => e.id),
    });
  }
  const pairs = sides[0].chosen
    .flatMap((layers, t) => layers.map((chosen, l) => [chosen, sides[1].chosen[t][l]]))
    .filter(([a]) => a);
  const other = pairs.filter(([a, b]) => a.some((e) => !b.includes(e))).length;
  postMessage({ type: "compared", id, mistake, right: sides[0], wrong: sides[1], choices: pairs.length, other });
}

function run() {
  waiting = null;
  sliceBegan = performance.now();
  const until = sliceBegan + SLICE;
  let pause = 0;
  let full = false;
  while (job && !pause && !full) {
    full = performance.now() > until;
    const { value, done } = job.next(full); // a job that is told "full" sends what it has
    if (done) job = null;
    else pause = value;
  }
  spent += performance.now() - sliceBegan;
  if (job) waiting = setTimeout(run, pause);
}

function start(next) {
  clearTimeout(waiting);
  [job, spent] = [next, 0];
  run();
}

const ANSWERS = {
  load(message) {
    config = message.config;
    weights = unpackWeights(message.tensors, fromBase64(message.base64));
    postMessage({ type: "loaded" });
  },
  write: ({ id, tokens, known, settings }) => start(writing(id, tokens, known, settings)),
  halt() {
    clearTimeout(waiting);
    job = null;
  },
  inspect({ id, position, layer }) {
    if (sequence && position < sequence.tokens.length)
      postMessage({ type: "inspected", id, position, layer, ...inspected(position, layer) });
  },
  expand({ id, layer }) {
    if (sequence) postMessage({ type: "expanded", id, layer, rows: expanded(layer) });
  },
  compare: (message) => start(comparing(message.id, message)),
  test: ({ expected, tokenizer }) => start(testing(expected, tokenizer)),
};

if (typeof postMessage === "function" && typeof window === "undefined") onmessage = ({ data }) => ANSWERS[data.type](data);
