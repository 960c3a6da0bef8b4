"use strict";
// The router: the wall of experts, one choice told in steps, the sliders that change it, and the load over the text.

const E = config.n_routed_experts, GROUPS = config.n_group, EACH = E / GROUPS, CHOSEN = config.num_experts_per_tok;
const columnX = (e, cell, gap) => e * cell + Math.floor(e / EACH) * gap;

const biasNames = Object.fromEntries(moeLayers.map((l) => [l, `model.layers.${l}.mlp.gate.e_score_correction_bias`]));
const trainedBias = (() => {
  const wanted = about.tensors.filter(({ name }) => name.endsWith("e_score_correction_bias"));
  return wanted.length ? unpackWeights(wanted, fromBase64(byId("weights").textContent)) : {};
})();

/** The bias of every expert of a layer as it counts now, and none where the router has no bias. */
function biasOf(layer) {
  const trained = trainedBias[biasNames[layer]];
  if (!trained) return null;
  const bias = state.bias_off ? new Float64Array(E) : Float64Array.from(trained.data);
  for (const [at, expert, amount] of state.biases) if (at === layer) bias[expert] += amount;
  return bias;
}

/** Sliders changed the router: the text as it stands is read again. */
function reroute(patch) {
  change(patch);
  write(0);
}

function drawWall() {
  const cell = 24, gap = 12, left = 62, top = 26, row = 34, L = config.num_hidden_layers, inner = E * cell + (GROUPS - 1) * gap, shared = config.n_shared_experts ? 58 : 0;
  const width = left + inner + shared + 4, height = top + L * row + 4, entry = entryShown(), parts = [], lit = [];
  if (shared) parts.push(label(left + inner + 36, 14, "shared", `text-anchor="middle" class="small"`));
  for (let g = 0; g < GROUPS && hasGroups; g++) {
    parts.push(label(left + columnX(g * EACH, cell, gap) + (EACH * cell) / 2, 14, `group ${g + 1}`, `text-anchor="middle" class="small"`));
  }
  for (let l = 0; l < L; l++) {
    const y = top + l * row, route = entry?.routes[l];
    parts.push(label(left - 10, y + 18, `layer ${l + 1}`, `text-anchor="end" class="small${l === state.layer ? " kept" : ""}"`));
    if (l < config.first_k_dense_replace) {
      parts.push(rect(left, y + 3, inner, cell - 4, `class="dense" rx="4"`), label(left + inner / 2, y + 18, "no experts: one dense network for every token", `text-anchor="middle" class="small"`));
      continue;
    }
    if (shared) parts.push(rect(left + inner + 16, y + 1, 40, cell - 2, `rx="4" class="shared" data-say="The shared expert of layer ${l + 1} works on every token"`));
    for (let e = 0; e < E; e++) {
      const rank = route ? route.chosen.indexOf(e) : -1, gate = rank < 0 ? 0 : route.gates[rank];
      const says = `Layer ${l + 1}, expert ${e + 1}` + (route ? `: score ${route.s[e].toFixed(3)}${rank < 0 ? ", not chosen" : `, gate ${gate.toFixed(2)}`}` : "");
      const on = e === state.expert && l === state.layer;
      (rank < 0 ? parts : lit).push(rect(left + columnX(e, cell, gap) + 1, y + 1, cell - 2, cell - 2, `rx="4" class="expert${rank < 0 ? "" : " lit"}${on ? " on" : ""}" ${rank < 0 ? "" : `style="fill:${expertColour(e)};stroke:${groupColour(Math.floor(e / EACH))}"`} data-layer="${l}" data-expert="${e}" data-x="${rank < 0 ? "score" : "gate"}" data-say="${says}" role="button" aria-label="${says}" tabindex="${l === state.layer && e === (state.expert ?? 0) ? 0 : -1}" data-focus="${l}-${e}"`));
    }
  }
  const lines = [];
  for (let k = 0; k < CHOSEN && entry; k++) { // the k-th gate of one layer to the k-th of the next: a token's way through the wall
    const points = moeLayers.map((l) => {
      const route = entry.routes[l], order = topK(route.gates, CHOSEN);
      return `${(left + columnX(route.chosen[order[k]], cell, gap) + cell / 2).toFixed(1)},${top + l * row + cell / 2}`;
    });
    lines.push(`<polyline points="${points.join(" ")}" class="trace" style="stroke-width:${k ? 1.2 : 3.2};opacity:${k ? 0.35 : 0.9}"/>`);
  }
  put(byId("wall"), svg(width, height, parts.join("") + lines.join("") + lit.join(""), "Layers by experts; the experts of the picked token are lit", `class="wall"`));
  put(byId("wall-note"), `${moeLayers.length} layers of ${E} experts: <b>${integer(moeLayers.length * E)}</b> in all, of which one token lights <b>${integer(moeLayers.length * CHOSEN)}</b>. The thick line joins those with the largest gates. Press an expert: the tokens it works on are underlined in the text.`);
}

/** V3's wall: 58 layers of 256 experts in 8 groups. Where its tokens go is not known here; the counts are. */
function drawLargeWall() {
  const holder = byId("wall");
  if (holder.dataset.key !== "v3") {
    holder.dataset.key = "v3";
    holder.innerHTML = `<canvas role="img" aria-label="58 layers of 256 experts, 464 of them lit"></canvas>`;
  }
  const width = holder.clientWidth, cell = width / (256 + 7), high = Math.max(cell * 1.4, 3.4), at = shown();
  const v3 = { n_routed_experts: 256, n_group: 8, topk_group: 4, num_experts_per_tok: 8, topk_method: "noaux_tc", norm_topk_prob: true, routed_scaling_factor: 2.5 };
  paint(holder.firstChild, width, 58 * high, (context) => {
    let before = null;
    for (let l = 0; l < 58; l++) {
      const { chosen, gates } = choose(Float64Array.from({ length: 256 }, (_, e) => uniform(l + 1, at * 256 + e, 5)), new Float64Array(256), v3);
      for (let e = 0; e < 256; e++) {
        context.fillStyle = chosen.includes(e) ? groupColourOf(Math.floor(e / 32)) : colourOf("unlit");
        context.fillRect((e + Math.floor(e / 32)) * cell, l * high, Math.max(cell - 0.5, 0.6), high - 0.6);
      }
      const first = chosen[topK(gates, 1)[0]], x = (first + Math.floor(first / 32) + 0.5) * cell, y = (l + 0.5) * high;
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
  put(byId("wall-note"), "DeepSeek-V3: 58 layers of 256 experts, <b>14,848</b> in all; one token lights 8 in each layer, <b>464</b> of them (and one shared expert a layer), in at most 4 of the 8 groups. <em>The counts and the rule are V3's; the places are drawn at random, for 671 billion numbers do not fit into a page.</em>");
}

const groupColourOf = (group) => (isDark() ? `oklch(0.78 0.13 ${HUES[group]})` : `oklch(0.58 0.17 ${HUES[group]})`);

const STORY = [
  ["Scores", (r) => `Every expert gets a <b>score</b> for this token, by itself: ${num("score", config.scoring_func === "sigmoid" ? "s = sigmoid(u · e)" : "s = softmax(u · e)")}.`],
  ["Plus bias", (r) => r.bias ? `A <b>bias</b>, learned by counting, is added for the choice: ${num("bias", "s + b")}. Experts that had too many tokens are lowered, idle ones raised.` : "This router has no bias: scores alone decide."],
  ["Groups ranked", (r) => hasGroups ? `Experts live in <b>groups</b>, in V3 one group a node. A group is as good as its ${config.topk_method === "noaux_tc" ? "two best experts" : "best expert"}: ${num("group", [...r.best].map((v) => v.toFixed(2)).join(" · "))}.` : "This router has one group: nothing to rank."],
  ["Groups go dark", (r) => {
    if (!hasGroups) return "Nothing goes dark.";
    const free = topK(r.choice, CHOSEN).filter((e) => !r.chosen.includes(e));
    return `Only the ${num("kept", `best ${r.kept.length}`)} stay; <b>the others go dark with their best expert</b>.` + (free.length ? ` Expert${free.length > 1 ? "s" : ""} ${free.map((e) => e + 1).join(", ")} would have been among the ${CHOSEN} best, and ${free.length > 1 ? "are" : "is"} out.` : " For this token nobody good is lost.");
  }],
  ["The best stay", (r) => `Of those left the <b>${CHOSEN} best</b> by score plus bias work on the token: ${[...r.chosen].sort((a, b) => a - b).map((e) => e + 1).join(", ")}. The shared expert always does.`],
  ["Gates", (r) => `How much each says, its <b>gate</b>, comes from the score <em>without</em> the bias: ${num("gate", [...r.gates].map((g) => g.toFixed(2)).join(" + "))} = ${r.gates.reduce((a, b) => a + b, 0).toFixed(2)}. The bias says who; it never says how much.`],
];

function drawStory() {
  const route = routeShown(), step = state.story;
  put(byId("story-dots"), STORY.map(([name], i) => `<button type="button" data-step="${i}" aria-label="${i + 1}: ${name}" aria-current="${i === step ? "step" : "false"}" data-focus="d${i}"></button>`).join(""));
  if (!route) {
    put(byId("story"), "");
    return put(byId("story-note"), `Layer ${state.layer + 1} has no experts, or no token is picked. Choose another layer above.`);
  }
  const bias = biasOf(state.layer), c = { ...config, topk_group: state.topk_group };
  const r = { ...choose(Float64Array.from(route.s), bias, c), bias };
  const cell = 24, gap = 14, left = 30, top = 30, high = 150, base = top + high, width = left + E * cell + (GROUPS - 1) * gap + 6, parts = [];
  const values = step === 0 ? r.s : r.choice, largest = Math.max(1, ...values, ...(step === 5 ? r.gates : [])), y = (v) => base - (Math.max(v, 0) / largest) * high;
  for (const tick of [0, 0.5, 1]) {
    if (tick <= largest) parts.push(`<line x1="${left - 4}" x2="${width}" y1="${y(tick)}" y2="${y(tick)}" class="grid"/>`, label(left - 8, y(tick) + 4, String(tick), `text-anchor="end" class="small"`));
  }
  for (let g = 0; g < GROUPS; g++) {
    const dark = hasGroups && step >= 3 && !r.kept.includes(g), x0 = left + columnX(g * EACH, cell, gap);
    if (hasGroups && step >= 2) {
      const rank = topK(r.best, GROUPS).indexOf(g) + 1;
      parts.push(rect(x0 - 3, top - 26, EACH * cell + 6, high + 50, `rx="8" class="group${dark ? " dark" : ""}" style="--c:${groupColour(g)}"`));
      parts.push(label(x0 + (EACH * cell) / 2, top - 10, `${rank}. of ${GROUPS}: ${r.best[g].toFixed(2)}`, `text-anchor="middle" class="small${dark ? " faint" : " kept"}" data-x="group"`));
    }
    const inGroup = Array.from({ length: EACH }, (_, i) => g * EACH + i), two = topK(inGroup.map((e) => r.choice[e]), config.topk_method === "noaux_tc" ? 2 : 1).map((i) => inGroup[i]);
    for (const e of inGroup) {
      const x = x0 + (e % EACH) * cell + 3, wide = cell - 6, chosen = r.chosen.includes(e), out = dark || (step >= 4 && !chosen), gate = chosen ? r.gates[r.chosen.indexOf(e)] : 0;
      const value = step === 5 ? gate : values[e], says = `Expert ${e + 1}: score ${r.s[e].toFixed(3)}${bias ? `, bias ${bias[e] >= 0 ? "+" : "−"}${Math.abs(bias[e]).toFixed(3)}` : ""}${chosen ? `, gate ${gate.toFixed(2)}` : ""}`;
      const fill = `style="fill:${groupColour(g)}"`, attributes = `data-x="${step === 5 ? "gate" : step ? "bias" : "score"}" data-say="${says}" tabindex="-1"`;
      if (step >= 1 && step < 5 && bias) {
        const low = Math.min(r.s[e], r.choice[e]);
        parts.push(rect(x, y(low), wide, base - y(low), `${fill} class="bar${out ? " out" : ""}" rx="2" ${attributes}`));
        if (r.choice[e] !== r.s[e]) parts.push(rect(x, y(Math.max(r.s[e], r.choice[e])), wide, Math.max(y(low) - y(Math.max(r.s[e], r.choice[e])), 1.2), `class="bias ${bias[e] > 0 ? "up" : "down"}${out ? " out" : ""}" ${attributes}`));
      } else {
        parts.push(rect(x, y(value), wide, base - y(value), `${fill} class="bar${out ? " out" : ""}" rx="2" ${attributes}`));
      }
      if (step === 2 && hasGroups && two.includes(e)) parts.push(label(x + wide / 2, y(r.choice[e]) - 5, "•", `text-anchor="middle" class="mark"`));
      if (step === 3 && dark && topK(r.choice, CHOSEN).includes(e)) parts.push(label(x + wide / 2, y(r.choice[e]) - 5, "✕", `text-anchor="middle" class="mark bad"`));
      if (step >= 4 && chosen) parts.push(rect(x - 2, y(value) - 2, wide + 4, base - y(value) + 4, `rx="3" class="ring"`));
      if (step === 5 && chosen) parts.push(label(x + wide / 2, y(value) - 7, gate.toFixed(2), `text-anchor="middle" class="small kept"`));
      parts.push(label(x + wide / 2, base + 15, String(e + 1), `text-anchor="middle" class="small${chosen && step >= 4 ? " kept" : ""}${dark ? " faint" : ""}"`));
    }
  }
  put(byId("story"), svg(width, base + 28, parts.join(""), `${STORY[step][0]}: ${E} experts`, `class="story"`));
  put(byId("story-note"), `<span class="step-name">${step + 1} · ${STORY[step][0]}</span> ${STORY[step][1](r)}`);
}

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
  const even = (tokens * CHOSEN) / E, loads = counts.map((count) => count / even), most = Math.max(2, ...loads);
  const cell = 24, gap = 12, left = 62, high = 70, shared = config.n_shared_experts ? 58 : 0, width = left + E * cell + (GROUPS - 1) * gap + shared + 4, y = (v) => 6 + high - (v / most) * high;
  const bars = loads.map((v, e) => rect(left + columnX(e, cell, gap) + 3, y(v), cell - 6, 6 + high - y(v), `rx="2" style="fill:${groupColour(Math.floor(e / EACH))}" class="bar${e === state.expert ? " on" : ""}" data-x="load" data-say="Expert ${e + 1}: ${counts[e]} of ${tokens} tokens, load ${v.toFixed(2)}" tabindex="-1"`)).join("");
  const even1 = `<line x1="${left - 4}" x2="${width - shared}" y1="${y(1)}" y2="${y(1)}" class="limit"/>` + label(left - 10, y(1) + 4, "even", `text-anchor="end" class="small"`);
  put(byId("load"), svg(width, high + 10, bars + even1, `Load of ${E} experts`, `class="wall"`));
  const idle = counts.filter((count) => !count).length;
  put(byId("load-note"), `1 is an even share. ${num("maxvio", `MaxVio ${(Math.max(...loads) - 1).toFixed(2)}`)}${idle ? `; ${idle} expert${idle > 1 ? "s" : ""} without a token` : ""}. One text is one kind of text: experts specialise, and only over many texts are loads even.`);
}

byId("wall").addEventListener("click", (event) => {
  const cell = event.target.closest("[data-expert]");
  if (!cell) return;
  const expert = Number(cell.dataset.expert), layer = Number(cell.dataset.layer), same = expert === state.expert && layer === state.layer;
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
  const next = byId("wall").querySelector(`[data-layer="${Number(cell.dataset.layer) + down}"][data-expert="${Number(cell.dataset.expert) + right}"]`);
  return next?.focus();
});
const tellStory = (step) => change({ story: Math.min(Math.max(step, 0), STORY.length - 1) });
byId("story-back").addEventListener("click", () => tellStory(state.story - 1));
byId("story-on").addEventListener("click", () => tellStory(state.story + 1));
byId("story-dots").addEventListener("click", (event) => event.target.dataset.step && tellStory(Number(event.target.dataset.step)));
byId("wall-here").addEventListener("click", () => change({ wall: "here" }));
byId("wall-v3").addEventListener("click", () => change({ wall: "v3" }));

byId("bias-on").addEventListener("change", () => reroute({ bias_off: !byId("bias-on").checked }));
byId("bias-expert").addEventListener("change", () => change({ expert: Number(byId("bias-expert").value) }));
byId("bias-amount").addEventListener("input", () => {
  const expert = Number(byId("bias-expert").value), amount = Number(byId("bias-amount").value);
  const others = state.biases.filter(([l, e]) => l !== state.layer || e !== expert);
  reroute({ expert, biases: amount ? [...others, [state.layer, expert, amount]] : others });
});
byId("groups").addEventListener("input", () => reroute({ topk_group: Number(byId("groups").value) }));
byId("router-reset").addEventListener("click", () => reroute({ bias_off: false, biases: [], topk_group: config.topk_group }));

const fewest = Math.ceil(CHOSEN / EACH); // groups that hold K experts at all
byId("groups").min = fewest;
byId("groups").max = GROUPS;
byId("groups").closest("label").hidden = !hasGroups;
for (const id of ["bias-on", "bias-amount"]) byId(id).closest("label").hidden = !Object.keys(trainedBias).length;
put(byId("bias-expert"), Array.from({ length: E }, (_, e) => `<option value="${e}">${e + 1}</option>`).join(""));
put(byId("router-gist"), `Instead of one large network, each layer has ${E} small ones, its <b>experts</b>. A <b>router</b> sends each token to ${CHOSEN} of them${config.n_shared_experts ? ", and a shared expert sees all" : ""}. <b>Who chooses? Each expert's score for this token, plus a bias that keeps the load even.</b>`);

panel("router", () => {
  for (const [id, name] of [["wall-here", "here"], ["wall-v3", "v3"]]) {
    byId(id).setAttribute("aria-checked", state.wall === name);
  }
  if (state.wall === "v3") drawLargeWall();
  else drawWall();
  drawStory();
  drawLoad();
  const expert = state.expert ?? Number(byId("bias-expert").value), changed = state.biases.find(([l, e]) => l === state.layer && e === expert);
  byId("bias-expert").value = expert;
  byId("bias-amount").value = changed ? changed[2] : 0;
  byId("bias-now").textContent = changed ? `${changed[2] > 0 ? "+" : "−"}${Math.abs(changed[2]).toFixed(2)}` : "± 0";
  byId("bias-on").checked = !state.bias_off;
  byId("groups").value = state.topk_group;
  byId("groups-now").textContent = `${state.topk_group} of ${GROUPS}`;
});
