"use strict";
// Mistakes that public implementations repeat, each as a wrong line that can be put into the engine, as in minids' own museum of
// mistakes: a function of the engine is replaced by a wrong one, and whoever calls it gets that. `make(c)` puts it in and
// returns what takes it out again; `fits(c)` says whether a model has the part it concerns.

let wrongKeys = null; // of ropeKeyPerHead: name of the layer → a matrix that no checkpoint has

const MISTAKES = {
  gates_from_biased_scores: {
    title: "Gates taken from the biased scores",
    says: "The balancing bias may decide who is chosen, never how much the expert says. Here it does both (a regression that transformers had for a while).",
    line: ["gates = s[chosen]", "gates = (s + b)[chosen]"],
    fits: (c) => c.topk_method === "noaux_tc",
    make() {
      const right = gatesOf;
      gatesOf = (s, choice, chosen, c) => right(choice, choice, chosen, c);
      return () => (gatesOf = right);
    },
  },
  softmax_gate: {
    title: "Softmax in place of sigmoid",
    says: "V2 compared experts by a softmax, V3 looks at each alone. The weights were trained for the one and are used with the other.",
    line: ["s = sigmoid(logits)", "s = softmax(logits)"],
    fits: (c) => c.scoring_func === "sigmoid",
    make() {
      const right = affinity;
      affinity = (logits) => softmax(logits);
      return () => (affinity = right);
    },
  },
  groups_set_to_zero: {
    title: "Losing groups set to 0 instead of −∞",
    says: "Harmless while every biased score is above 0, as here unless you move a bias: then a forbidden expert with 0 beats an allowed one below it. DeepSeek's own demo code had it until February 2025.",
    line: ["choice[other groups] = −∞", "choice[other groups] = 0"],
    fits: (c) => c.topk_method === "noaux_tc" && c.topk_group < c.n_group,
    make() {
      const right = outside;
      outside = () => 0;
      return () => (outside = right);
    },
  },
  group_score_of_the_best: {
    title: "Groups ranked by their best expert alone",
    says: "V2 ranked groups so; V3 adds up the two best. vLLM had it wrong at first.",
    line: ["score(group) = best + second best", "score(group) = best"],
    fits: (c) => c.topk_method === "noaux_tc" && c.topk_group < c.n_group,
    make() {
      const right = groupScore;
      groupScore = (choice) => Math.max(...choice);
      return () => (groupScore = right);
    },
  },
  rope_key_per_head: {
    title: "A RoPE key for every head",
    says: "Not MLA any more: the cache grows with the number of heads. No checkpoint has those weights, so a loader fills them with random numbers, as here.",
    line: ["k_rope = RoPE(W_KR h), one for all heads", "k_rope[i] = RoPE(W_KR[i] h), for each head i"],
    fits: (c) => c.num_attention_heads > 1,
    make() {
      const right = ropeKey;
      wrongKeys = new Map();
      ropeKey = (raw, h, p, position, c) => {
        const d_r = c.qk_rope_head_dim;
        const rows = c.num_attention_heads * d_r;
        if (!wrongKeys.has(p)) {
          const normal = (i) => Math.sqrt(-2 * Math.log(1 - uniform(1, i, 0))) * Math.cos(2 * Math.PI * uniform(1, i, 1));
          const data = Float32Array.from({ length: rows * h.length }, (_, i) => c.initializer_range * normal(i + p.length));
          wrongKeys.set(p, { shape: [rows, h.length], data });
        }
        const keys = matmul(h, wrongKeys.get(p));
        return Float64Array.from({ length: rows }, (_, i) => {
          const start = i - (i % d_r);
          return rope(keys.subarray(start, start + d_r), position, c)[i - start];
        });
      };
      return () => (ropeKey = right);
    },
  },
  rope_in_the_other_layout: {
    title: "RoPE pairs in the other layout",
    says: "Neighbours (2i, 2i+1) and halves (i, i + d/2) are both called RoPE. A model trained with either works; a checkpoint of the other does not.",
    line: ["pair i = (2i, 2i + 1)", "pair i = (i, i + d_r/2)"],
    fits: (c) => c.qk_rope_head_dim > 2,
    make() {
      const right = rope;
      rope = (x, position, c) => right(x, position, { ...c, rope_interleave: !c.rope_interleave });
      return () => (rope = right);
    },
  },
  scale_of_the_content_alone: {
    title: "Attention scaled by the content part alone",
    says: "A query has d_h + d_r numbers, and all of them count: the scale is 1/√(d_h + d_r), not 1/√d_h.",
    line: ["scale = 1 / √(d_h + d_r)", "scale = 1 / √d_h"],
    fits: (c) => c.qk_nope_head_dim > 0,
    make() {
      const right = softmaxScale;
      softmaxScale = (c) => right(c) * Math.sqrt((c.qk_nope_head_dim + c.qk_rope_head_dim) / c.qk_nope_head_dim);
      return () => (softmaxScale = right);
    },
  },
  cache_offset_forgotten: {
    title: "The mask forgets what is cached",
    says: "The causal mask of a new chunk begins at the first key instead of where the chunk stands. Here every token is a chunk of its own, so each sees the first token and nothing else.",
    line: ["token t sees tokens 0 … t", "token t sees token 0"],
    fits: () => true,
    make() {
      const right = seen;
      seen = () => 1;
      return () => (seen = right);
    },
  },
  residual_inside_the_moe_layer: {
    title: "Residual added twice",
    says: "Equation 12 is printed with the residual inside; the block adds it as well, so it comes twice, and normalised at that.",
    line: ["y = shared(u) + Σ gate · expert(u)", "y = u + shared(u) + Σ gate · expert(u)"],
    fits: (c) => c.first_k_dense_replace < c.num_hidden_layers,
    make() {
      const right = moe;
      moe = (u, ...rest) => add(u, right(u, ...rest));
      return () => (moe = right);
    },
  },
  yarn_without_mscale: {
    title: "YaRN without its scale",
    says: "A longer context spreads attention over more tokens; YaRN sharpens it again by m². Left out, it is too flat.",
    line: ["scale = m² / √(d_h + d_r)", "scale = 1 / √(d_h + d_r)"],
    fits: (c) => Boolean(c.rope_scaling),
    make() {
      const right = mscale;
      mscale = () => 1;
      return () => (mscale = right);
    },
  },
  mtp_head_without_the_block: {
    title: "MTP without its block",
    says: "State and embedding are joined and go straight to the head. The text stays right, for the model has the last word; its guesses get worse.",
    line: ["h¹ = TRM(M [h⁰ ; e])", "h¹ = M [h⁰ ; e]"],
    fits: (c) => c.num_nextn_predict_layers > 0,
    make() {
      const right = mtpBlock;
      mtpBlock = (x) => x;
      return () => (mtpBlock = right);
    },
  },
  parallel_mtp_heads: {
    title: "Parallel MTP heads",
    says: "Every module reads the main model's state instead of the module before it: no chain.",
    line: ["module k reads module k − 1", "module k reads the model"],
    fits: (c) => c.num_nextn_predict_layers > 1,
    make() {
      const right = stateBefore;
      stateBefore = (states, depth, position) => right(states, 1, position);
      return () => (stateBefore = right);
    },
  },
};

let takeOut = null;

/** Make this mistake and no other; null for none. */
function mistaken(name, c) {
  if (takeOut) takeOut();
  takeOut = name ? MISTAKES[name].make(c) : null;
}
