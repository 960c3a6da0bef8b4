"use strict";
// The router: one choice told in steps, and the sliders that change it.

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

const STORY = [
  [
    "Scores",
    (r) =>
      `Every expert gets a <b>score</b> for this token, by itself: ${num("score", config.scoring_func === "sigmoid" ? "s = sigmoid(u · e)" : "s = softmax(u · e)")}.`,
  ],
  [
    "Plus bias",
    (r) =>
      r.bias
        ? `A <b>bias</b>, learned by counting, is added for the choice: ${num("bias", "s + b")}. Experts that had too many tokens are lowered, idle ones raised.`
        : "This router has no bias: scores alone decide.",
  ],
  [
    "Groups ranked",
    (r) =>
      hasGroups
        ? `Experts live in <b>groups</b>, in V3 one group a node. A group is as good as its ${config.topk_method === "noaux_tc" ? "two best experts" : "best expert"}: ${num("group", [...r.best].map((v) => v.toFixed(2)).join(" · "))}.`
        : "This router has one group: nothing to rank.",
  ],
  [
    "Groups go dark",
    (r) => {
      if (!hasGroups) return "Nothing goes dark.";
      const free = topK(r.choice, CHOSEN)
        .filter((e) => !r.chosen.includes(e))
        .sort((a, b) => a - b);
      return (
        `Only the ${num("kept", `best ${r.kept.length}`)} stay; <b>the others go dark with their best expert</b>.` +
        (free.length
          ? ` Expert${free.length > 1 ? "s" : ""} ${free.map((e) => e + 1).join(", ")} would have been among the ${CHOSEN} best, and ${free.length > 1 ? "are" : "is"} out.`
          : " For this token nobody good is lost.")
      );
    },
  ],
  [
    "The best stay",
    (r) =>
      `Of those left the <b>${CHOSEN} best</b> by score plus bias work on the token: ${[...r.chosen]
        .sort((a, b) => a - b)
        .map((e) => e + 1)
        .join(", ")}. The shared expert always does.`,
  ],
  [
    "Gates",
    (r) =>
      `How much each says, its <b>gate</b>, comes from the score <em>without</em> the bias: ${num("gate", [...r.gates].map((g) => g.toFixed(2)).join(" + "))} = ${r.gates.reduce((a, b) => a + b, 0).toFixed(2)}. The bias says who; it never says how much.`,
  ],
];

function drawStory() {
  const route = routeShown();
  const step = state.story;
  put(
    byId("story-dots"),
    STORY.map(
      ([name], i) =>
        `<button type="button" data-step="${i}" aria-label="${i + 1}: ${name}" aria-current="${i === step ? "step" : "false"}" data-focus="d${i}"></button>`,
    ).join(""),
  );
  if (!route) {
    put(byId("story"), "");
    return put(
      byId("story-note"),
      `Layer ${state.layer + 1} has no experts, or no token is picked. Choose another layer above.`,
    );
  }
  const bias = biasOf(state.layer);
  const c = { ...config, topk_group: state.topk_group };
  const r = { ...choose(Float64Array.from(route.s), bias, c), bias };
  const cell = 24;
  const gap = 14;
  const left = 30;
  const top = 52;
  const high = 140;
  const base = top + high;
  const width = left + E * cell + (GROUPS - 1) * gap + 6;
  const parts = [];
  const values = step === 0 ? r.s : r.choice;
  const largest = Math.max(1, ...(step === 5 ? r.gates : values));
  const y = (v) => base - (Math.max(v, 0) / largest) * high;
  for (const tick of [0, 0.5, 1]) {
    if (tick <= largest)
      parts.push(
        `<line x1="${left - 4}" x2="${width}" y1="${y(tick)}" y2="${y(tick)}" class="grid"/>`,
        label(left - 8, y(tick) + 4, String(tick), `text-anchor="end" class="small"`),
      );
  }
  for (let g = 0; g < GROUPS; g++) {
    const dark = hasGroups && step >= 3 && !r.kept.includes(g);
    const x0 = left + columnX(g * EACH, cell, gap);
    if (hasGroups && step >= 2) {
      const rank = topK(r.best, GROUPS).indexOf(g) + 1;
      parts.push(
        rect(
          x0 - 3,
          top - 48,
          EACH * cell + 6,
          high + 70,
          `rx="8" class="group${dark ? " dark" : ""}" style="--c:${groupColour(g)}"`,
        ),
      );
      parts.push(
        label(
          x0 + (EACH * cell) / 2,
          top - 31,
          `${rank}. of ${GROUPS}: ${r.best[g].toFixed(2)}`,
          `text-anchor="middle" class="small${dark ? " faint" : " kept"}" data-x="group"`,
        ),
      );
    }
    const inGroup = Array.from({ length: EACH }, (_, i) => g * EACH + i);
    const two = topK(
      inGroup.map((e) => r.choice[e]),
      config.topk_method === "noaux_tc" ? 2 : 1,
    ).map((i) => inGroup[i]);
    for (const e of inGroup) {
      const x = x0 + (e % EACH) * cell + 3;
      const wide = cell - 6;
      const chosen = r.chosen.includes(e);
      const out = dark || (step >= 4 && !chosen);
      const gate = chosen ? r.gates[r.chosen.indexOf(e)] : 0;
      const value = step === 5 ? gate : values[e];
      const says = `Expert ${e + 1}: score ${r.s[e].toFixed(3)}${bias ? `, bias ${bias[e] >= 0 ? "+" : "−"}${Math.abs(bias[e]).toFixed(3)}` : ""}${chosen ? `, gate ${gate.toFixed(2)}` : ""}`;
      const fill = `style="fill:${groupColour(g)}"`;
      const attributes = `data-x="${step === 5 ? "gate" : step ? "bias" : "score"}" data-say="${says}" tabindex="-1"`;
      if (step >= 1 && step < 5 && bias) {
        const low = Math.min(r.s[e], r.choice[e]);
        parts.push(rect(x, y(low), wide, base - y(low), `${fill} class="bar${out ? " out" : ""}" rx="2" ${attributes}`));
        if (r.choice[e] !== r.s[e])
          parts.push(
            rect(
              x,
              y(Math.max(r.s[e], r.choice[e])),
              wide,
              Math.max(y(low) - y(Math.max(r.s[e], r.choice[e])), 1.2),
              `class="bias ${bias[e] > 0 ? "up" : "down"}${out ? " out" : ""}" ${attributes}`,
            ),
          );
      } else {
        parts.push(rect(x, y(value), wide, base - y(value), `${fill} class="bar${out ? " out" : ""}" rx="2" ${attributes}`));
      }
      if (step === 2 && hasGroups && two.includes(e))
        parts.push(label(x + wide / 2, y(r.choice[e]) - 5, "•", `text-anchor="middle" class="mark"`));
      if (step === 3 && dark && topK(r.choice, CHOSEN).includes(e))
        parts.push(label(x + wide / 2, y(r.choice[e]) - 5, "✕", `text-anchor="middle" class="mark bad"`));
      if (step >= 4 && chosen) parts.push(rect(x - 2, y(value) - 2, wide + 4, base - y(value) + 4, `rx="3" class="ring"`));
      if (step === 5 && chosen)
        parts.push(label(x + wide / 2, y(value) - 7, gate.toFixed(2), `text-anchor="middle" class="small kept"`));
      parts.push(
        label(
          x + wide / 2,
          base + 15,
          String(e + 1),
          `text-anchor="middle" class="small${chosen && step >= 4 ? " kept" : ""}${dark ? " faint" : ""}"`,
        ),
      );
    }
  }
  put(byId("story"), svg(width, base + 28, parts.join(""), `${STORY[step][0]}: ${E} experts`, `class="story"`));
  put(byId("story-note"), `<span class="step-name">${step + 1} · ${STORY[step][0]}</span> ${STORY[step][1](r)}`);
}

const tellStory = (step) => change({ story: Math.min(Math.max(step, 0), STORY.length - 1) });
byId("story-back").addEventListener("click", () => tellStory(state.story - 1));
byId("story-on").addEventListener("click", () => tellStory(state.story + 1));
byId("story-dots").addEventListener(
  "click",
  (event) => event.target.dataset.step && tellStory(Number(event.target.dataset.step)),
);

byId("bias-on").addEventListener("change", () => reroute({ bias_off: !byId("bias-on").checked }));
byId("bias-expert").addEventListener("change", () => change({ expert: Number(byId("bias-expert").value) }));
byId("bias-amount").addEventListener("input", () => {
  const expert = Number(byId("bias-expert").value);
  const amount = Number(byId("bias-amount").value);
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
put(
  byId("router-gist"),
  `Instead of one large network, each layer has ${E} small ones, its <b>experts</b>. A <b>router</b> sends each token to ${CHOSEN} of them${config.n_shared_experts ? ", and a shared expert sees all" : ""}. <b>Who chooses? Each expert's score for this token, plus a bias that keeps the load even.</b>`,
);

panel("router", () => {
  for (const [id, name] of [
    ["wall-here", "here"],
    ["wall-v3", "v3"],
  ]) {
    byId(id).setAttribute("aria-checked", state.wall === name);
  }
  if (state.wall === "v3") drawLargeWall();
  else drawWall();
  drawStory();
  drawLoad();
  byId("load-part").hidden = state.wall === "v3"; // it is this model's
  const expert = state.expert ?? Number(byId("bias-expert").value);
  const changed = state.biases.find(([l, e]) => l === state.layer && e === expert);
  byId("bias-expert").value = expert;
  byId("bias-amount").value = changed ? changed[2] : 0;
  byId("bias-now").textContent = changed ? `${changed[2] > 0 ? "+" : "−"}${Math.abs(changed[2]).toFixed(2)}` : "± 0";
  byId("bias-on").checked = !state.bias_off;
  byId("groups").value = state.topk_group;
  byId("groups-now").textContent = `${state.topk_group} of ${GROUPS}`;
});
