"use strict";
// All of DeepSeek-V3's forward pass for one token after another, in the order of minids/pico.py and of the report
// (arXiv 2412.19437); a number in square brackets is its equation. What pico does for a whole text at once is done here for
// the newest token: the earlier ones are met in the cache, which holds their latents and nothing else.
//
// w       Hugging Face checkpoint names → { shape, data }, data a Float32Array (out, in); a layer's experts are stacked
// c       the configuration, with Hugging Face's names
// x, h, u a token's vector, Float64Array: every sum is made in float64
// shapes  d model, d_c KV latent, d_r RoPE, d_h content part of a head, d_v value head, H heads, E experts, K chosen ones,
//         G groups of them, M kept groups, I width of a feed-forward network, V vocabulary, T tokens in the cache

// Functions that know no model.

function sigmoid(x) {
  return x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x)); // without overflow on either side
}

function softmax(x) {
  let most = -Infinity;
  let sum = 0;
  for (const value of x) most = Math.max(most, value);
  const e = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) sum += e[i] = Math.exp(x[i] - most);
  for (let i = 0; i < x.length; i++) e[i] /= sum;
  return e;
}

/** x · gain / sqrt(mean(x²) + ε): Zhang & Sennrich 2019, eq. 4. */
function rmsnorm(x, gain, eps) {
  let sum = 0;
  for (const value of x) sum += value * value;
  const scale = 1 / Math.sqrt(sum / x.length + eps);
  return x.map((value, i) => value * scale * gain.data[i]);
}

/** Rows `first` … `first + count - 1` of a matrix (or of stacked ones), times x: (in) → (count). */
function matmul(x, matrix, first = 0, count = matrix.shape[0]) {
  const data = matrix.data;
  const n = x.length;
  const fours = n - (n % 4);
  const y = new Float64Array(count);
  for (let row = 0, at = first * n; row < count; row++, at += n) {
    let a = 0; // four sums side by side: a processor works on them at once
    let b = 0;
    let c = 0;
    let d = 0;
    for (let i = 0; i < fours; i += 4) {
      a += data[at + i] * x[i];
      b += data[at + i + 1] * x[i + 1];
      c += data[at + i + 2] * x[i + 2];
      d += data[at + i + 3] * x[i + 3];
    }
    for (let i = fours; i < n; i++) a += data[at + i] * x[i];
    y[row] = a + b + (c + d);
  }
  return y;
}

function linear(x, w, name) {
  const y = matmul(x, w[name + ".weight"]);
  const bias = w[name + ".bias"];
  if (bias) for (let i = 0; i < y.length; i++) y[i] += bias.data[i];
  return y;
}

function add(x, y) {
  return x.map((value, i) => value + y[i]);
}

/** W_down (silu(W_gate u) · W_up u): Shazeer 2020. Of stacked experts it is number `expert` that serves. */
function swiglu(u, w, p, expert = 0) {
  const [gate, up, down] = ["gate", "up", "down"].map((name) => w[`${p}${name}_proj.weight`]);
  const width = gate.shape[gate.shape.length - 2];
  const d = u.length;
  const a = matmul(u, gate, expert * width, width); // (d) -> (I)
  const b = matmul(u, up, expert * width, width);
  return matmul(
    a.map((value, i) => value * sigmoid(value) * b[i]),
    down,
    expert * d,
    d,
  ); // (I) -> (d)
}

/** Indices of the k largest, best first; of equals the first. */
function topK(x, k) {
  const best = [];
  for (let i = 0; i < x.length; i++) {
    let place = best.length;
    while (place > 0 && x[i] > x[best[place - 1]]) place--;
    if (place < k) best.splice(place, 0, i);
    if (best.length > k) best.pop();
  }
  return best;
}

// Positions: RoPE (Su et al. 2021), stretched by YaRN (Peng et al. 2023; section 4.3).

/** m(s, a) = 0.1 · a · ln s + 1: by how much attention is sharpened for a context s times longer. */
function mscale(factor, a) {
  return factor > 1 ? 0.1 * a * Math.log(factor) + 1 : 1;
}

/** Radians per position of each rotated pair, (d_r/2). */
function ropeFrequencies(c) {
  const d_r = c.qk_rope_head_dim;
  const yarn = c.rope_scaling;
  const theta = Float64Array.from({ length: d_r / 2 }, (_, i) => c.rope_theta ** ((-2 * i) / d_r));
  if (!yarn) return theta;
  const pairThatTurns = (times) =>
    // the fractional i at which the old context holds that many turns
    (d_r * Math.log(yarn.original_max_position_embeddings / (2 * Math.PI * times))) / (2 * Math.log(c.rope_theta));
  const low = Math.max(Math.floor(pairThatTurns(yarn.beta_fast)), 0);
  const high = Math.min(Math.ceil(pairThatTurns(yarn.beta_slow)), d_r - 1);
  return theta.map((value, i) => {
    const ramp = Math.min(Math.max((i - low) / (high !== low ? high - low : 0.001), 0), 1); // 0: fast, kept; 1: slow, stretched
    return value * (1 - ramp + ramp / yarn.factor);
  });
}

/** Turn each pair of x (d_r) by position · frequency. */
function rope(x, position, c) {
  const frequencies = ropeFrequencies(c);
  const half = x.length / 2;
  const yarn = c.rope_scaling;
  const y = new Float64Array(x.length);
  const stretch = yarn ? mscale(yarn.factor, yarn.mscale) / mscale(yarn.factor, yarn.mscale_all_dim) : 1;
  for (let i = 0; i < half; i++) {
    const [first, second] = c.rope_interleave ? [2 * i, 2 * i + 1] : [i, i + half]; // interleaved as in DeepSeek's weights
    const cos = stretch * Math.cos(position * frequencies[i]);
    const sin = stretch * Math.sin(position * frequencies[i]);
    y[first] = x[first] * cos - x[second] * sin;
    y[second] = x[first] * sin + x[second] * cos;
  }
  return y;
}

// Multi-head latent attention, section 2.1.1.

const LATENT_EPS = 1e-6; // the norms of both latents have this ε, whatever rms_norm_eps says

/** 1 / sqrt(d_h + d_r), times m² under YaRN. */
function softmaxScale(c) {
  const yarn = c.rope_scaling;
  const m = yarn ? mscale(yarn.factor, yarn.mscale_all_dim) : 1;
  return (c.qk_nope_head_dim + c.qk_rope_head_dim) ** -0.5 * m * m;
}

/** What one layer remembers of the text: a latent and a turned RoPE key per token, d_c + d_r numbers for all heads. */
class LatentCache {
  constructor(c) {
    this.width = c.kv_lora_rank + c.qk_rope_head_dim;
    this.rows = []; // T vectors (d_c + d_r)
  }

  put(position, c_kv, k_rope) {
    const row = new Float64Array(c_kv.length + k_rope.length);
    row.set(c_kv);
    row.set(k_rope, c_kv.length);
    this.rows[position] = row;
  }
}

function queries(h, w, p, c) {
  if (c.q_lora_rank === null) return linear(h, w, p + "q_proj"); // (d) -> (H·(d_h+d_r))
  const c_q = linear(h, w, p + "q_a_proj"); // [6] (d) -> (d_c')
  return linear(rmsnorm(c_q, w[p + "q_a_layernorm.weight"], LATENT_EPS), w, p + "q_b_proj"); // [7, 8]
}

/** The RoPE key, one for all heads, straight from the hidden state: [3]. */
function ropeKey(raw, h, p, position, c) {
  return rope(raw, position, c);
}

/** How many entries of the cache, from the first on, a token sees: all up to its own. */
function seen(position) {
  return position + 1;
}

/**
 * Attention through the latent, (d) -> (d), with W^UK and W^UV absorbed: the query goes down to the latents, no key or value
 * of any head is ever made. `watch`, where given, is told what happened.
 */
function mla(h, w, p, c, cache, position, watch) {
  const H = c.num_attention_heads;
  const d_h = c.qk_nope_head_dim;
  const d_r = c.qk_rope_head_dim;
  const d_c = c.kv_lora_rank;
  const d_v = c.v_head_dim;
  const up = w[p + "kv_b_proj.weight"].data; // (H, d_h+d_v, d_c): W^UK and W^UV, head by head
  const q = queries(h, w, p, c);

  const compressed = linear(h, w, p + "kv_a_proj_with_mqa"); // [1, 3] (d) -> (d_c+d_r)
  const c_kv = rmsnorm(compressed.subarray(0, d_c), w[p + "kv_a_layernorm.weight"], LATENT_EPS); // (d_c)
  const k_rope = ropeKey(compressed.subarray(d_c), h, p, position, c); // [3] (d_r)
  cache.put(position, c_kv, k_rope);

  const T = seen(position);
  const scale = softmaxScale(c);
  const perHead = k_rope.length > d_r ? d_r : 0; // only where a mistake gives every head a key of its own
  const o = new Float64Array(H * d_v);
  for (let i = 0; i < H; i++) {
    const q_nope = q.subarray(i * (d_h + d_r), i * (d_h + d_r) + d_h); // (d_h)
    const q_rope = rope(q.subarray(i * (d_h + d_r) + d_h, (i + 1) * (d_h + d_r)), position, c); // [8, 9] (d_r)
    const keys = i * (d_h + d_v) * d_c;
    const values = keys + d_h * d_c; // where W^UK_i and W^UV_i begin
    const q_latent = new Float64Array(d_c); // W^UK_iᵀ q^C_i: (d_h) -> (d_c), instead of [2]
    for (let n = 0; n < d_h; n++) {
      const row = up.subarray(keys + n * d_c, keys + (n + 1) * d_c);
      const value = q_nope[n];
      for (let k = 0; k < d_c; k++) q_latent[k] += value * row[k];
    }

    const content = new Float64Array(T); // q^C · k^C, position by position
    const place = new Float64Array(T); // q^R · k^R
    for (let j = 0; j < T; j++) {
      const row = cache.rows[j];
      let a = 0;
      let b = 0;
      for (let k = 0; k < d_c; k++) a += q_latent[k] * row[k];
      for (let k = 0; k < d_r; k++) b += q_rope[k] * row[d_c + i * perHead + k];
      content[j] = a * scale;
      place[j] = b * scale;
    }
    const weights = softmax(add(content, place)); // [10] (T)
    const mixed = new Float64Array(d_c); // Σ_j weight_j c_j: (T), (T, d_c) -> (d_c)
    for (let j = 0; j < T; j++) {
      const row = cache.rows[j];
      const weight = weights[j];
      for (let k = 0; k < d_c; k++) mixed[k] += weight * row[k];
    }
    o.set(matmul(mixed, { data: up }, values / d_c, d_v), i * d_v); // W^UV_i: (d_c) -> (d_v), instead of [5]
    if (watch) watch.heads.push({ content, place, weights, q_nope, q_latent });
  }
  if (watch) Object.assign(watch, { compressed, c_kv, k_rope });
  return linear(o, w, p + "o_proj"); // [11] (H·d_v) -> (d)
}

// Mixture of experts, section 2.1.2.

/** Affinity of the token to every expert, (E): [15]. */
function affinity(logits, c) {
  return c.scoring_func === "sigmoid" ? logits.map(sigmoid) : softmax(logits);
}

/** What an expert's score becomes where its group was not kept; not 0, since a biased score may be negative. */
function outside() {
  return -Infinity;
}

/** How good a group is: in V3 the sum of its two best biased scores. */
function groupScore(choice, c) {
  return c.topk_method === "noaux_tc" ? topK(choice, 2).reduce((sum, e) => sum + choice[e], 0) : Math.max(...choice);
}

/** How much each chosen expert says: [13, 14, 16] by its score without the bias, which decides who and not how much. */
function gatesOf(s, choice, chosen, c) {
  const gates = chosen.map((e) => s[e]);
  const sum = gates.reduce((a, b) => a + b, 0);
  return gates.map((g) => (c.norm_topk_prob ? g / (sum + 1e-20) : g) * c.routed_scaling_factor);
}

/** Scores s (E) and bias (E) or null → who is chosen, and everything on the way there. */
function choose(s, bias, c) {
  const E = c.n_routed_experts;
  const G = c.n_group;
  const size = E / G;
  const corrected = c.topk_method === "noaux_tc" && bias;
  const choice = corrected ? s.map((value, e) => value + bias[e]) : s; // [16]
  let best = null;
  let kept = topK(new Float64Array(G), G);
  let allowed = choice;
  if (c.topk_method !== "greedy") {
    // a token may only touch its best groups: in V3 4 of 8 nodes
    best = Float64Array.from({ length: G }, (_, g) => groupScore(choice.slice(g * size, (g + 1) * size), c));
    kept = topK(best, c.topk_group);
    allowed = choice.map((value, e) => (kept.includes(Math.floor(e / size)) ? value : outside(value)));
  }
  const chosen = topK(allowed, c.num_experts_per_tok);
  return { s, choice, best, kept, chosen, gates: gatesOf(s, choice, chosen, c) };
}

function route(u, w, p, c) {
  const s = affinity(linear(u, w, p + "gate"), c);
  const bias = w[p + "gate.e_score_correction_bias"];
  return choose(s, bias ? bias.data : null, c);
}

/** Shared expert + gated routed experts: [12] without its residual, which the block adds. */
function moe(u, w, p, c, watch) {
  const routing = route(u, w, p, c);
  const y = c.n_shared_experts ? swiglu(u, w, p + "shared_experts.") : new Float64Array(u.length);
  routing.chosen.forEach((e, n) => {
    const from = swiglu(u, w, p + "experts.", e);
    for (let i = 0; i < y.length; i++) y[i] += routing.gates[n] * from[i];
  });
  if (watch) watch.routing = routing;
  return y;
}

// The model.

/** One Transformer block, (d) -> (d): Figure 2. */
function block(x, w, layer, c, cache, position, watch) {
  const p = `model.layers.${layer}.`;
  const eps = c.rms_norm_eps;
  x = add(x, mla(rmsnorm(x, w[p + "input_layernorm.weight"], eps), w, p + "self_attn.", c, cache, position, watch));
  const u = rmsnorm(x, w[p + "post_attention_layernorm.weight"], eps);
  return add(x, layer >= c.first_k_dense_replace ? moe(u, w, p + "mlp.", c, watch) : swiglu(u, w, p + "mlp."));
}

function embedding(token, w, c) {
  const data = w["model.embed_tokens.weight"].data;
  const d = c.hidden_size;
  return Float64Array.from(data.subarray(token * d, (token + 1) * d));
}

/** What the head and the first MTP module read: the output of the last block, after the final norm. (d) */
function hiddenState(token, w, c, caches, position, watches) {
  let x = embedding(token, w, c);
  for (let layer = 0; layer < c.num_hidden_layers; layer++) {
    x = block(x, w, layer, c, caches[layer], position, watches && watches[layer]);
  }
  return rmsnorm(x, w["model.norm.weight"], c.rms_norm_eps);
}

/** Logits of the next token, (d) -> (V). */
function head(hidden, w, c) {
  return matmul(hidden, w[c.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"]);
}

/** Of the states [of the model, of module 1, …] the one that module `depth` reads: a chain, not parallel heads. */
function stateBefore(states, depth, position) {
  return states[depth - 1][position];
}

/** TRM_k, a block like those of the model: [22]. */
function mtpBlock(x, w, layer, c, cache, position, watch) {
  return block(x, w, layer, c, cache, position, watch);
}

/**
 * Multi-token prediction, section 2.2: module `depth` at position i is shown token i + depth and the state of the module
 * before it, and its new state (d), through the same head, predicts token i + depth + 1.
 */
function mtpState(token, before, w, c, depth, cache, position, watch) {
  const layer = c.num_hidden_layers + depth - 1;
  const p = `model.layers.${layer}.`;
  const d = c.hidden_size;
  const eps = c.rms_norm_eps;
  const both = new Float64Array(2 * d); // the paper writes the halves the other way round
  both.set(rmsnorm(embedding(token, w, c), w[p + "enorm.weight"], eps));
  both.set(rmsnorm(before, w[p + "hnorm.weight"], eps), d);
  const x = mtpBlock(linear(both, w, p + "eh_proj"), w, layer, c, cache, position, watch); // [21, 22] (2d) -> (d)
  return rmsnorm(x, w[p + "shared_head.norm.weight"], eps); // [23] is head() of this
}
