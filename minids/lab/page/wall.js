"use strict";
// The wall of experts: which of them the picked token lights, layer by layer, and how many tokens of the text each one got.

const E = config.n_routed_experts;
const GROUPS = config.n_group;
const EACH = E / GROUPS;
const CHOSEN = config.num_experts_per_tok;
const columnX = (e, cell, gap) => e * cell + Math.floor(e / EACH) * gap;

function drawWall() {
  const cell = 24;
  const gap = 12;
  const left = 62;
  const top = 26;
  const row = 34;
  const L = config.num_hidden_layers;
  const inner = E * cell + (GROUPS - 1) * gap;
  const shared = config.n_shared_experts ? 58 : 0;
  const width = left + inner + shared + 4;
  const height = top + L * row + 4;
  const entry = entryShown();
  const parts = [];
  const lit = [];
  if (shared) parts.push(label(left + inner + 36, 14, "shared", `text-anchor="middle" class="small"`));
  for (let g = 0; g < GROUPS && hasGroups; g++) {
    parts.push(
      label(
        left + columnX(g * EACH, cell, gap) + (EACH * cell) / 2,
        14,
        `group ${g + 1}`,
        `text-anchor="middle" class="small"`,
      ),
    );
  }
  for (let l = 0; l < L; l++) {
    const y = top + l * row;
    const route = entry?.routes[l];
    parts.push(
      label(left - 10, y + 18, `layer ${l + 1}`, `text-anchor="end" class="small${l === state.layer ? " kept" : ""}"`),
    );
    if (l < config.first_k_dense_replace) {
      parts.push(
        rect(left, y + 3, inner, cell - 4, `class="dense" rx="4"`),
        label(left + inner / 2, y + 18, "no experts: one dense network for every token", `text-anchor="middle" class="small"`),
      );
      continue;
    }
    if (shared)
      parts.push(
        rect(
          left + inner + 16,
          y + 1,
          40,
          cell - 2,
          `rx="4" class="shared" data-say="The shared expert of layer ${l + 1} works on every token"`,
        ),
      );
    for (let e = 0; e < E; e++) {
      const rank = route ? route.chosen.indexOf(e) : -1;
      const gate = rank < 0 ? 0 : route.gates[rank];
      const says =
        `Layer ${l + 1}, expert ${e + 1}` +
        (route ? `: score ${route.s[e].toFixed(3)}${rank < 0 ? ", not chosen" : `, gate ${gate.toFixed(2)}`}` : "");
      const on = e === state.expert && l === state.layer;
      (rank < 0 ? parts : lit).push(
        rect(
          left + columnX(e, cell, gap) + 1,
          y + 1,
          cell - 2,
          cell - 2,
          `rx="4" class="expert${rank < 0 ? "" : " lit"}${on ? " on" : ""}" ${rank < 0 ? "" : `style="fill:${expertColour(e)};stroke:${groupColour(Math.floor(e / EACH))}"`} data-layer="${l}" data-expert="${e}" data-x="${rank < 0 ? "score" : "gate"}" data-say="${says}" role="button" aria-label="${says}" tabindex="${l === state.layer && e === (state.expert ?? 0) ? 0 : -1}" data-focus="${l}-${e}"`,
        ),
      );
    }
  }
  const lines = [];
  for (let k = 0; k < CHOSEN && entry; k++) {
    // the k-th gate of one layer to the k-th of the next: a token's way through the wall
    const points = moeLayers.map((l) => {
      const route = entry.routes[l];
      const order = topK(route.gates, CHOSEN);
      return `${(left + columnX(route.chosen[order[k]], cell, gap) + cell / 2).toFixed(1)},${top + l * row + cell / 2}`;
    });
    lines.push(
      `<polyline points="${points.join(" ")}" class="trace" style="stroke-width:${k ? 1.2 : 3.2};opacity:${k ? 0.35 : 0.9}"/>`,
    );
  }
  put(
    byId("wall"),
    svg(
      width,
      height,
      parts.join("") + lines.join("") + lit.join(""),
      "Layers by experts; the experts of the picked token are lit",
      `class="wall"`,
      "group",
    ),
  );
  put(
    byId("wall-note"),
    `${moeLayers.length} layers of ${E} experts: <b>${integer(moeLayers.length * E)}</b> in all, of which one token lights <b>${integer(moeLayers.length * CHOSEN)}</b>. The thick line joins those with the largest gates. Press an expert: the tokens it works on are underlined in the text.`,
  );
}

/** V3's wall: 58 layers of 256 experts in 8 groups. Where its tokens go is not known here; the counts are. */
function drawLargeWall() {
  const holder = byId("wall");
  if (holder.dataset.key !== "v3") {
    holder.dataset.key = "v3";
    holder.innerHTML = `<canvas role="img" aria-label="58 layers of 256 experts, 464 of them lit"></canvas>`;
  }
  const width = holder.clientWidth;
  const cell = width / (256 + 7);
  const high = Math.max(cell * 1.4, 3.4);
  const at = shown();
  const v3 = {
    n_routed_experts: 256,
    n_group: 8,
    topk_group: 4,
    num_experts_per_tok: 8,
    topk_method: "noaux_tc",
    norm_topk_prob: true,
    routed_scaling_factor: 2.5,
  };
  paint(holder.firstChild, width, 58 * high, (context) => {
    let before = null;
    for (let l = 0; l < 58; l++) {
      const { chosen, gates } = choose(
        Float64Array.from({ length: 256 }, (_, e) => uniform(l + 1, at * 256 + e, 5)),
        new Float64Array(256),
        v3,
      );
      for (let e = 0; e < 256; e++) {
        context.fillStyle = chosen.includes(e) ? groupColourOf(Math.floor(e / 32)) : colourOf("unlit");
        context.fillRect((e + Math.floor(e / 32)) * cell, l * high, Math.max(cell - 0.5, 0.6), high - 0.6);
      }
      const first = chosen[topK(gates, 1)[0]];
      const x = (first + Math.floor(first / 32) + 0.5) * cell;
      const y = (l + 0.5) * high;
      if (before) {
        context.strokeStyle = colourOf("ink");
        context.globalAlpha = 0.3;
        context.beginPath();
        context.moveTo(...before);
        context.lineTo(x, y);
        context.stroke();
        context.globalAlpha = 1;
      }
      before = [x, y];
    }
  });
  put(
    byId("wall-note"),
    "DeepSeek-V3: 58 layers of 256 experts, <b>14,848</b> in all; one token lights 8 in each layer, <b>464</b> of them (and one shared expert a layer), in at most 4 of the 8 groups. <em>The counts and the rule are V3's; the places are drawn at random, for 671 billion numbers do not fit into a page.</em>",
  );
}

const groupColourOf = (group) => (isDark() ? `oklch(0.78 0.13 ${HUES[group]})` : `oklch(0.58 0.17 ${HUES[group]})`);

function drawLoad() {
  const counts = new Array(E).fill(0);
  let tokens = 0;
  for (const entry of state.entries) {
    const route = entry?.routes[state.layer];
    if (!route) continue;
    tokens += 1;
    for (const e of route.chosen) counts[e] += 1;
  }
  byId("load-layer").textContent = `layer ${state.layer + 1}`;
  if (!tokens) {
    put(byId("load"), "");
    return put(byId("load-note"), "");
  }
  const even = (tokens * CHOSEN) / E;
  const loads = counts.map((count) => count / even);
  const most = Math.max(2, ...loads);
  const cell = 24;
  const gap = 12;
  const left = 62;
  const high = 70;
  const shared = config.n_shared_experts ? 58 : 0;
  const width = left + E * cell + (GROUPS - 1) * gap + shared + 4;
  const y = (v) => 6 + high - (v / most) * high;
  const bars = loads
    .map((v, e) =>
      rect(
        left + columnX(e, cell, gap) + 3,
        y(v),
        cell - 6,
        6 + high - y(v),
        `rx="2" style="fill:${groupColour(Math.floor(e / EACH))}" class="bar${e === state.expert ? " on" : ""}" data-x="load" data-say="Expert ${e + 1}: ${counts[e]} of ${tokens} tokens, load ${v.toFixed(2)}" tabindex="-1"`,
      ),
    )
    .join("");
  const even1 =
    `<line x1="${left - 4}" x2="${width - shared}" y1="${y(1)}" y2="${y(1)}" class="limit"/>` +
    label(left - 10, y(1) + 4, "even", `text-anchor="end" class="small"`);
  put(byId("load"), svg(width, high + 10, bars + even1, `Load of ${E} experts`, `class="wall"`));
  const idle = counts.filter((count) => !count).length;
  put(
    byId("load-note"),
    `1 is an even share. ${num("maxvio", `MaxVio ${(Math.max(...loads) - 1).toFixed(2)}`)}${idle ? `; ${idle} expert${idle > 1 ? "s" : ""} without a token` : ""}. One text is one kind of text: experts specialise, and only over many texts are loads even.`,
  );
}

byId("wall").addEventListener("click", (event) => {
  const cell = event.target.closest("[data-expert]");
  if (!cell) return;
  const expert = Number(cell.dataset.expert);
  const layer = Number(cell.dataset.layer);
  const same = expert === state.expert && layer === state.layer;
  change({ layer, expert: same ? null : expert });
  askForSeen();
});
byId("wall").addEventListener("pointerover", (event) => {
  const cell = event.target.closest("[data-expert]");
  change({ over: cell ? [Number(cell.dataset.layer), Number(cell.dataset.expert)] : null });
});
byId("wall").addEventListener("pointerleave", () => change({ over: null }));
byId("wall").addEventListener("keydown", (event) => {
  const cell = event.target.closest("[data-expert]");
  if (!cell) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return cell.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  }
  const [right, down] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key] ?? [0, 0];
  if (!right && !down) return undefined;
  event.preventDefault();
  event.stopPropagation();
  const next = byId("wall").querySelector(
    `[data-layer="${Number(cell.dataset.layer) + down}"][data-expert="${Number(cell.dataset.expert) + right}"]`,
  );
  return next?.focus();
});
byId("wall-here").addEventListener("click", () => change({ wall: "here" }));
byId("wall-v3").addEventListener("click", () => change({ wall: "v3" }));
