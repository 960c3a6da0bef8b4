"use strict";
// A text going through the model: reading, drawing the next token, and speculative decoding with the MTP modules
// (sections 2.2 and 5.4.3; the rule is that of Leviathan et al. 2023 and Chen et al. 2023). As in minids/inference.

/** A number in [0, 1) that depends on nothing but these: the same text comes again, wherever one starts. */
function uniform(seed, position, purpose) {
  let h = (seed * 0x9e3779b1) ^ (position * 0x85ebca6b) ^ (purpose * 0xc2b2ae35);
  for (const factor of [0x21f0aaad, 0x735a2d97]) h = Math.imul(h ^ (h >>> 16), factor);
  return ((h ^ (h >>> 15)) >>> 0) / 2 ** 32;
}

function argmax(x) {
  let best = 0;
  for (let i = 1; i < x.length; i++) if (x[i] > x[best]) best = i;
  return best;
}

/** The distribution that is drawn from, (V): the model's own at temperature 1, a certainty at 0. */
function distribution(logits, temperature) {
  if (temperature > 0) return softmax(logits.map((value) => value / temperature));
  const p = new Float64Array(logits.length);
  p[argmax(logits)] = 1;
  return p;
}

function drawn(p, chance) {
  let left = chance * p.reduce((a, b) => a + b, 0);
  for (let i = 0; i < p.length; i++) if ((left -= p[i]) < 0) return i;
  return argmax(p);
}

/** Whether a guess of probability q by the draft and p by the model stands. */
function accepts(p, q, chance) {
  return chance < p / q;
}

/**
 * How many guesses stand, and the token after them. q, p: the draft's and the model's distribution at each guess; p has one
 * more. Where one is refused, the draw is from what the draft left out, (p − q)⁺, so that the text is distributed as p.
 */
function judge(guesses, q, p, chance) {
  for (let j = 0; j < guesses.length; j++) {
    if (!accepts(p[j][guesses[j]], q[j][guesses[j]], chance(j, 1))) {
      const rest = p[j].map((value, i) => Math.max(value - q[j][i], 0));
      return { stood: j, next: drawn(rest.some((value) => value > 0) ? rest : p[j], chance(j, 0)) };
    }
  }
  return { stood: guesses.length, next: drawn(p[guesses.length], chance(guesses.length, 0)) };
}

class Sequence {
  constructor(w, c) {
    Object.assign(this, { w, c, tokens: [], logits: null });
    this.depths = c.num_nextn_predict_layers;
    const caches = (n) => Array.from({ length: n }, () => new LatentCache(c));
    this.caches = caches(c.num_hidden_layers);
    this.mtpCaches = caches(this.depths);
    this.states = Array.from({ length: this.depths + 1 }, () => []); // of the model and of every module, by position
    this.settled = new Array(this.depths).fill(0); // positions of each module that rest on no guess
  }

  /** Read one token more: its routing by layer. `logits` are then those of the token after it. */
  read(token) {
    const watches = this.caches.map(() => ({ heads: [] }));
    const position = this.tokens.length;
    const hidden = hiddenState(token, this.w, this.c, this.caches, position, watches);
    this.states[0][position] = hidden;
    this.tokens.push(token);
    this.logits = head(hidden, this.w, this.c);
    return watches;
  }

  /** Forget all tokens but the first `length`. */
  rewind(length) {
    if (length >= this.tokens.length) return;
    this.tokens.length = Math.max(length, 0);
    this.logits = null;
    this.settled = this.settled.map((count, k) => Math.min(count, Math.max(0, length - k - 1)));
  }

  /**
   * n guesses at what follows the tokens read and `pending`, the one that is known but not read yet; pick(logits) draws.
   * Module k reads up to the newest position, from the state of the one before; beyond the last module, that is fed its own
   * state again. What rests on guesses is made anew the next time.
   */
  draft(pending, n, pick) {
    const T = this.tokens.length;
    const text = [...this.tokens, pending];
    let state = null;
    for (let guess = 1; guess <= n; guess++) {
      const depth = Math.min(guess, this.depths);
      const cache = this.mtpCaches[depth - 1];
      const module = (before, i) => mtpState(text[i + depth], before, this.w, this.c, depth, cache, i);
      if (guess <= this.depths) {
        for (let i = this.settled[depth - 1]; i < T; i++) {
          this.states[depth][i] = module(stateBefore(this.states, depth, i), i);
        }
        this.settled[depth - 1] = Math.max(0, T - depth + 1);
        state = this.states[depth][T - 1];
      } else {
        state = module(state, T - 1 + guess - this.depths);
      }
      text.push(pick(head(state, this.w, this.c), guess));
    }
    return text.slice(T + 1);
  }
}

const ALTERNATIVES = 8;

/** The likeliest next tokens and the natural logarithm of each one's probability, by the model's own distribution. */
function likeliest(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const whole = most + Math.log(logits.reduce((sum, value) => sum + Math.exp(value - most), 0));
  return { best: topK(logits, ALTERNATIVES).map((id) => [id, logits[id] - whole]), of: (id) => logits[id] - whole };
}

/**
 * Read `text` as far as it has not been read, then continue it: yields what is known of each token once it has been read.
 * settings: temperature, seed, guesses (per pass; 0 for none), most (tokens at which to stop), stop (the end token).
 */
function* follow(sequence, text, settings) {
  const { temperature, seed, guesses, most, stop } = settings;
  const chances = (position, purpose) => uniform(seed, position, purpose);
  let pass = 0;
  let guess = null; // `guess`: at the token that comes next, with whether it was for the model to judge
  const before = () => (sequence.logits ? likeliest(sequence.logits) : null);
  const entry = (position, id, alternatives, made, at, watches) => ({
    position,
    id,
    pass: at,
    guess: made,
    logProbability: alternatives && alternatives.of(id),
    alternatives: alternatives && alternatives.best,
    routes: watches.map(({ routing }) => routing && { s: routing.s, chosen: routing.chosen, gates: routing.gates }),
    latents: watches.map(({ c_kv, k_rope }) => Float32Array.of(...c_kv, ...k_rope)),
  });
  const plainGuess = (token) => (sequence.depths && sequence.tokens.length ? sequence.draft(token, 1, argmax)[0] : null);
  const asGuess = (id, token, judged) => (id === null ? null : { id, stood: id === token, judged });

  const readOne = (id, alternatives, at) => {
    const next = plainGuess(id);
    const position = sequence.tokens.length;
    const made = asGuess(guess, id, false);
    const read = entry(position, id, alternatives, made, at, sequence.read(id));
    guess = next;
    return read;
  };
  if (sequence.tokens.length) {
    // the newest token once more, for the logits and for the guess at the one after it
    const last = sequence.tokens[sequence.tokens.length - 1];
    sequence.rewind(sequence.tokens.length - 1);
    guess = plainGuess(last);
    sequence.read(last);
  }
  while (sequence.tokens.length < text.length) yield readOne(text[sequence.tokens.length], before(), 0);
  if (!sequence.tokens.length) return; // nothing to go on from

  if (!guesses || !sequence.depths) {
    while (sequence.tokens.length < most) {
      const position = sequence.tokens.length;
      const p = distribution(sequence.logits, temperature);
      const id = drawn(p, chances(position, 0));
      yield readOne(id, before(), ++pass);
      if (id === stop) return;
    }
    return;
  }
  let alternatives = before();
  let pending = drawn(distribution(sequence.logits, temperature), chances(sequence.tokens.length, 0));
  let made = asGuess(guess, pending, false);
  while (sequence.tokens.length < most) {
    const known = sequence.tokens.length;
    const n = Math.max(0, Math.min(guesses, most - known - 1));
    const q = [];
    pass++;
    const proposed = sequence.draft(pending, n, (logits, j) => {
      q.push(distribution(logits, temperature));
      return drawn(q[q.length - 1], chances(known + j, 2));
    });
    const reads = [];
    const after = [];
    for (const token of [pending, ...proposed]) {
      // one pass: on a GPU all of them side by side
      reads.push(sequence.read(token));
      after.push(sequence.logits);
    }
    const p = after.map((logits) => distribution(logits, temperature));
    const { stood, next } = judge(proposed, q, p, (j, purpose) => chances(known + 1 + j, purpose));
    sequence.rewind(known + 1 + stood);
    sequence.logits = after[stood];
    const kept = [pending, ...proposed.slice(0, stood)];
    for (let j = 0; j < kept.length; j++) {
      yield entry(known + j, kept[j], alternatives, made, pass, reads[j]);
      if (kept[j] === stop) {
        sequence.rewind(known + j + 1);
        return;
      }
      alternatives = likeliest(after[j]);
      made =
        j < stood
          ? { id: proposed[j], stood: true, judged: true }
          : j < proposed.length
            ? { id: proposed[j], stood: false, judged: true }
            : null;
    }
    pending = next;
  }
}
