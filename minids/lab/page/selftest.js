"use strict";
// The page's test of itself, run in the worker: against what NumPy computed from these very weights in float64 (expected.py), and
// against what must hold for any weights.

function* testing(expected, describedTokenizer) {
  const results = [];
  const check = (what, passed) => results.push({ what, passed: Boolean(passed) });
  const near = (a, b, tolerance = 1e-6) => Math.abs(a - b) <= tolerance;
  const c = config;
  const w = weights;
  const tokenizer = new Tokenizer(describedTokenizer);
  const greedy = { temperature: 0, seed: 0, guesses: 0, stop: null };
  mistaken(null);
  variant = undefined; // whatever was read with a mistake is read again afterwards

  const ids = (entries) => entries.map((entry) => entry.id).join();
  function* all(text, settings, sequence = new Sequence(w, c)) {
    const entries = [];
    for (const entry of follow(sequence, text, settings)) {
      entries.push(entry);
      yield 0;
    }
    return entries;
  }
  for (const [n, test] of expected.entries()) {
    const label = `text ${n + 1}`;
    const sequence = new Sequence(w, c);
    check(`${label}: token ids as in Python`, tokenizer.encode(test.text).join() === test.encoded.join());
    let worst = 0;
    let experts = true;
    for (const [t, token] of test.tokens.entries()) {
      const watches = sequence.read(token);
      test.best[t].forEach((id, k) => (worst = Math.max(worst, Math.abs(sequence.logits[id] - test.logits[t][k]))));
      watches.forEach(({ routing }, layer) => {
        if (routing)
          experts &&=
            routing.chosen
              .slice()
              .sort((a, b) => a - b)
              .join() === test.experts[layer][t].join();
      });
      yield 0;
    }
    check(`${label}: logits within 1e-6 of NumPy`, worst < 1e-6);
    check(`${label}: the same experts in every layer`, experts);
    const most = { ...greedy, most: test.continued.length };
    const plain = yield* all(test.tokens, most);
    check(`${label}: goes on as NumPy does`, ids(plain) === test.continued.join());
    if (test.guesses) {
      const right = test.guesses.slice(0, -1).every((id, i) => plain[i + 2].guess.id === id);
      check(`${label}: MTP guesses as NumPy's`, right);
      for (const guesses of [1, 3]) {
        check(
          `${label}: the same text with ${guesses} guess${guesses > 1 ? "es" : ""} a pass`,
          ids(yield* all(test.tokens, { ...most, guesses })) === ids(plain),
        );
      }
    }
    const half = new Sequence(w, c);
    const cut = test.tokens.slice(0, test.tokens.length >> 1);
    yield* all(cut, { ...greedy, most: cut.length }, half);
    check(
      `${label}: read in two pieces it is the same`,
      ids(yield* all(test.tokens, most, half)) === ids(plain).split(",").slice(cut.length).join(),
    );

    const last = sequence.tokens.length - 1;
    const layer = c.num_hidden_layers - 1;
    const p = `model.layers.${layer}.self_attn.`;
    const watch = { heads: [] };
    const up = w[p + "kv_b_proj.weight"];
    const d_h = c.qk_nope_head_dim;
    const d_v = c.v_head_dim;
    const watches = sequence.caches.map((_, i) => (i === layer ? watch : { heads: [] }));
    hiddenState(test.tokens[last], w, c, sequence.caches, last, watches);
    const key = matmul(sequence.caches[layer].rows[0].subarray(0, c.kv_lora_rank), up, 0, d_h + d_v); // of head 1, token 0: [2]
    const long = watch.heads[0].q_nope.reduce((sum, q, i) => sum + q * key[i], 0) * softmaxScale(c);
    check(`${label}: absorbed scores are those of keys written out`, near(long, watch.heads[0].content[0], 1e-9));
    check(
      `${label}: attention weights add up to 1`,
      watch.heads.every(({ weights: a }) =>
        near(
          a.reduce((x, y) => x + y, 0),
          1,
          1e-12,
        ),
      ),
    );
  }
  const { chosen, gates } = choose(
    Float64Array.from({ length: c.n_routed_experts }, (_, e) => uniform(7, e, 0)),
    null,
    c,
  );
  check("K different experts are chosen", new Set(chosen).size === c.num_experts_per_tok);
  if (c.norm_topk_prob)
    check(
      "gates add up to the scaling factor",
      near(
        gates.reduce((a, b) => a + b, 0),
        c.routed_scaling_factor,
        1e-12,
      ),
    );
  check("E4M3: largest 448, smallest 2⁻⁹", E4M3[126] === 448 && E4M3[1] === 2 ** -9 && E4M3[0x80 | 0x38] === -1);
  const v3 = {
    qk_rope_head_dim: 64,
    qk_nope_head_dim: 128,
    rope_theta: 10000,
    rope_interleave: true,
    rope_scaling: {
      factor: 40,
      original_max_position_embeddings: 4096,
      beta_fast: 32,
      beta_slow: 1,
      mscale: 1,
      mscale_all_dim: 1,
    },
  };
  check(
    "YaRN: V3's frequencies",
    near(ropeFrequencies(v3)[16], 0.0055, 1e-12) && near(ropeFrequencies(v3)[31], 3.33380358e-6, 1e-13),
  );
  check("YaRN: V3's softmax scale", near(softmaxScale(v3), 0.1352337788, 1e-10));
  const turned = [5, 9].map((t) => rope(Float64Array.of(1, 2, 3, 4), t, { ...v3, qk_rope_head_dim: 4 }));
  const shifted = [105, 109].map((t) => rope(Float64Array.of(1, 2, 3, 4), t, { ...v3, qk_rope_head_dim: 4 }));
  const dot = ([a, b]) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  check("RoPE: only the distance counts", near(dot(turned), dot(shifted), 1e-9));
  const once = tokenizer.encode("one, two; 3 + 4\n");
  const twice = tokenizer.encode(tokenizer.decode(once));
  check("text → tokens → text → the same tokens", once.join() === twice.join());
  postMessage({ type: "tested", results });
}
