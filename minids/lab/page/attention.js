"use strict";
// Attention of the picked token: weights of one head, split into what content and what position put in; and what is kept of it.

const MOST_COLUMNS = 40;

function drawAttention() {
  const seen = state.seen;
  const holder = byId("attention-chart");
  const at = shown();
  byId("attention-head").textContent =
    `Layer ${state.layer + 1}, head ${state.head + 1}: from “${at >= 0 ? tokenizer.name(state.ids[at]) : ""}” back`;
  if (!seen) return put(holder, "");
  const { content, place, weights } = seen.heads[state.head];
  const T = weights.length;
  const narrow = holder.clientWidth < 480;
  const shownAt = topK(weights, narrow ? 20 : MOST_COLUMNS).sort((a, b) => a - b);
  const columns = shownAt.length; // in the text's order
  const width = narrow ? 430 : 760;
  const left = 44;
  const cell = Math.min((width - left - 6) / columns, 34);
  const top = 20;
  const high = 110;
  const zero = top + high + 26;
  const deep = 92;
  const parts = [];
  const share = shownAt.reduce((sum, t) => sum + weights[t], 0);
  const mostWeight = Math.max(...weights);
  const reach = Math.max(...shownAt.map((t) => Math.max(Math.abs(content[t]), Math.abs(place[t]))), 1e-9);
  const mid = zero + deep / 2;
  const y = (v) => mid - (v / reach) * (deep / 2);
  parts.push(
    label(left - 8, top + 10, mostWeight >= 0.995 ? "1" : mostWeight.toFixed(2), `text-anchor="end" class="small"`),
    label(left - 8, top + high, "0", `text-anchor="end" class="small"`),
  );
  parts.push(
    `<line x1="${left}" x2="${left + columns * cell}" y1="${top + high}" y2="${top + high}" class="grid"/><line x1="${left}" x2="${left + columns * cell}" y1="${mid}" y2="${mid}" class="grid"/>`,
  );
  parts.push(
    label(left - 8, zero + 8, `+${reach.toFixed(1)}`, `text-anchor="end" class="small"`),
    label(left - 8, zero + deep, `−${reach.toFixed(1)}`, `text-anchor="end" class="small"`),
  );
  parts.push(
    label(left, top - 7, "weight", `class="small kept"`),
    label(left, zero - 6, "scores: content and position", `class="small kept"`),
  );
  for (const [i, t] of shownAt.entries()) {
    const x = left + i * cell;
    const name = tokenizer.name(state.ids[t]);
    const say = `“${name}”: content ${content[t].toFixed(2)} + position ${place[t].toFixed(2)}, weight ${percent(weights[t])}`;
    parts.push(
      rect(
        x + 1,
        top + high - (weights[t] / mostWeight) * high,
        cell - 2,
        (weights[t] / mostWeight) * high,
        `class="weight" rx="1.5" data-x="weight" data-say="${escaped(say)}" tabindex="-1"`,
      ),
    );
    const half = (cell - 2) / 2;
    parts.push(
      rect(
        x + 1,
        Math.min(y(content[t]), mid),
        half,
        Math.abs(y(content[t]) - mid),
        `class="latent-fill" data-x="content" data-say="${escaped(say)}" tabindex="-1"`,
      ),
    );
    parts.push(
      rect(
        x + 1 + half,
        Math.min(y(place[t]), mid),
        half,
        Math.abs(y(place[t]) - mid),
        `class="rope-fill" data-x="position" data-say="${escaped(say)}" tabindex="-1"`,
      ),
    );
    parts.push(
      `<text transform="translate(${x + cell / 2 + 4} ${zero + deep + 10}) rotate(-60)" text-anchor="end" class="small mono${t === at ? " kept" : ""}">${escaped(name.length > 9 ? `${name.slice(0, 8)}…` : name)}</text>`,
    );
  }
  put(
    holder,
    svg(
      width,
      zero + deep + 78,
      parts.join(""),
      `Attention weights of head ${state.head + 1} over ${columns} tokens`,
      `class="attention"`,
    ) +
      `<p class="note">${columns < T ? `The ${columns} of ${T} tokens with the largest weights, ${percent(share)} of all, in the order of the text. ` : ""}${num("content", "<span class='latent'>Content</span>")} + ${num("position", "<span class='rope'>position</span>")}, then ${num("weight", "softmax")}. Turn the head to see others: some look at meaning, some just behind.</p>`,
  );
}

/** A row of squares, one for each number. */
function squares(values, columns, explain) {
  const cell = 16;
  const reach = Math.max(...Array.from(values, Math.abs), 1e-9);
  const rows = Math.ceil(values.length / columns);
  return svg(
    columns * cell,
    rows * cell,
    Array.from(values, (v, i) =>
      rect(
        (i % columns) * cell + 0.5,
        Math.floor(i / columns) * cell + 0.5,
        cell - 1,
        cell - 1,
        `rx="2" style="fill:${signed(v / reach)}" data-x="${explain}" data-say="number ${i + 1}: ${v.toFixed(3)}" tabindex="-1"`,
      ),
    ).join(""),
    `${values.length} numbers`,
    `class="squares" style="max-width:${columns * cell}px"`,
  );
}

function drawLatents() {
  const seen = state.seen;
  if (!seen) return put(byId("latents"), "");
  const d_c = config.kv_lora_rank;
  const before = seen.compressed.slice(0, d_c);
  const key = seen.compressed.slice(d_c);
  const columns = Math.min(16, d_c);
  const row = (title, first, second, explain, says) =>
    `<div class="pairing"><h4>${title}</h4><div><div><span class="small">before</span>${squares(first, columns, explain)}</div><span class="arrow" aria-hidden="true">→</span><div><span class="small">${says}</span>${squares(second, columns, explain)}</div></div></div>`;
  const full = config.num_attention_heads * PAIR;
  return put(
    byId("latents"),
    row(
      `<span class="latent">Latent</span> ${num("latent", `${d_c} numbers`)}`,
      before,
      seen.c_kv,
      "latent",
      "after its RMSNorm: kept",
    ) +
      row(
        `<span class="rope">RoPE key</span> ${num("ropekey", `${config.qk_rope_head_dim} numbers`)}`,
        key,
        seen.k_rope,
        "ropekey",
        `turned for position ${shown()}: kept`,
      ) +
      `<p class="note">That is all: ${num("mla", integer(d_c + config.qk_rope_head_dim))} numbers in this layer, for all ${config.num_attention_heads} heads. Their keys and values would be ${num("mha", integer(full))}. When a query comes, it goes down to the latent; no key is ever written out.</p>`,
  );
}

panel("attention", () => {
  drawAttention();
  drawLatents();
});
