"use strict";
// What holds the panels together: token, layer and head, the theme, links that restore a state, the self-test, the beginning.

panel(null, () => {
  const at = shown();
  const entry = state.entries[at];
  put(
    byId("token-now"),
    at < 0
      ? "–"
      : `<b>${at}</b> <code>${escaped(tokenizer.name(state.ids[at]))}</code>${state.token === null && state.hover === null ? ` <span class="muted">newest</span>` : ""}`,
  );
  byId("token-now").style.setProperty(
    "--c",
    entry?.routes[state.layer] ? expertColour(firstExpert(entry.routes[state.layer])) : "transparent",
  );
  radios(
    byId("layers"),
    Array.from({ length: config.num_hidden_layers }, (_, l) => [
      l,
      l + 1,
      `aria-label="layer ${l + 1}${l < config.first_k_dense_replace ? ", dense" : ""}"${l < config.first_k_dense_replace ? ` class="dense"` : ""}`,
    ]),
    state.layer,
    (value) => {
      change({ layer: Number(value) });
      askForSeen();
    },
  );
  radios(
    byId("heads"),
    Array.from({ length: config.num_attention_heads }, (_, h) => [h, h + 1, `aria-label="head ${h + 1}"`]),
    state.head,
    (value) => change({ head: Number(value) }),
  );
  put(
    byId("expert-now"),
    state.expert === null
      ? `<span class="muted">none</span>`
      : `<b>${state.expert + 1}</b> <button type="button" id="expert-none" aria-label="No expert" data-focus="none">✕</button>`,
  );
  const changed = [];
  if (state.mistake) changed.push(MISTAKES[state.mistake].title);
  if (state.bias_off) changed.push("no bias");
  if (state.biases.length) changed.push(`${state.biases.length} bias${state.biases.length > 1 ? "es" : ""} moved`);
  if (state.topk_group !== config.topk_group) changed.push(`${state.topk_group} groups kept`);
  for (const id of ["token-now", "status"]) byId(id).setAttribute("aria-live", state.playing ? "off" : "polite"); // not every token
  byId("alarm").hidden = !changed.length;
  put(
    byId("alarm"),
    changed.length
      ? `Not as trained: ${escaped(changed.join(", "))} <button type="button" id="as-trained" data-focus="reset">Undo</button>`
      : "",
  );
});

byId("token-back").addEventListener("click", () => pick(shown() - 1));
byId("token-on").addEventListener("click", () => pick(shown() + 1));
document.addEventListener("click", (event) => {
  if (event.target.id === "expert-none") change({ expert: null });
  if (event.target.id === "as-trained") reroute({ mistake: null, bias_off: false, biases: [], topk_group: config.topk_group });
});

byId("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  forget();
});
systemDark.addEventListener("change", forget);
addEventListener("resize", forget);

/** Colours or widths are others: everything is drawn anew. */
function forget() {
  for (const element of document.querySelectorAll("[data-key]")) delete element.dataset.key;
  redraw();
}

// Links that restore a state: everything that differs from the beginning, and the text as token ids.

const LINKED = {
  token: Number,
  layer: Number,
  head: Number,
  expert: Number,
  colour: String,
  temperature: Number,
  seed: Number,
  guesses: Number,
  topk_group: Number,
  mistake: String,
  sizes: String,
  known: String,
  context: Number,
  conversations: Number,
  wall: String,
  story: Number,
};
const beginning = { ...state };

function linkTo() {
  const parts = new URLSearchParams({ ids: state.ids.join(".") });
  for (const key of Object.keys(LINKED)) if (state[key] !== beginning[key] && state[key] !== null) parts.set(key, state[key]);
  if (state.bias_off) parts.set("bias", "off");
  if (state.biases.length) parts.set("biases", state.biases.map((b) => b.join("_")).join("!"));
  return `${location.href.split("#")[0]}#${parts}`;
}

const VALID = {
  layer: (v) => v >= 0 && v < config.num_hidden_layers,
  head: (v) => v >= 0 && v < config.num_attention_heads,
  expert: (v) => v >= 0 && v < E,
  topk_group: (v) => v >= fewest && v <= GROUPS,
  mistake: (v) => fitting.some(([name]) => name === v),
  known: (v) => v in MODELS,
  colour: (v) => ["expert", "surprise", "attention", "none"].includes(v),
  sizes: (v) => ["here", "large"].includes(v),
  wall: (v) => ["here", "v3"].includes(v),
  temperature: (v) => v >= 0 && v <= 1.5,
  story: (v) => v >= 0 && v < STORY.length,
  guesses: (v) => v >= 0 && v <= 4,
  context: (v) => v >= 1000 && v <= 160000,
  conversations: (v) => v >= 1 && v <= 64,
  seed: (v) => v >= 0,
  token: (v) => v >= 0,
};

/** What a link says, as far as this page has it; false where it says nothing. */
function restore(hash) {
  const parts = new URLSearchParams(hash.slice(1));
  if (!parts.has("ids") && ![...parts.keys()].some((key) => key in LINKED)) return false;
  const patch = { bias_off: parts.get("bias") === "off", biases: [] };
  for (const [key, read] of Object.entries(LINKED)) {
    const value = read(parts.get(key));
    if (parts.has(key) && (read === String || Number.isFinite(value)) && VALID[key](value)) patch[key] = value;
  }
  for (const one of (parts.get("biases") ?? "").split("!").filter(Boolean)) {
    const [layer, expert, amount] = one.split("_").map(Number);
    if (VALID.layer(layer) && VALID.expert(expert) && Math.abs(amount) <= 1) patch.biases.push([layer, expert, amount]);
  }
  const ids = (parts.get("ids") ?? "").split(".").filter(Boolean).map(Number);
  if (ids.length && ids.every((id) => Number.isInteger(id) && id >= 0 && id < config.vocab_size)) replaceTail(0, ids);
  change(patch);
  if (!state.ids.length) setText(EXAMPLES[0][1]);
  else write(0);
  return true;
}

byId("copy-link").addEventListener("click", async () => {
  const link = linkTo();
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link);
    byId("copy-link").textContent = "Copied";
  } catch {
    byId("copy-link").textContent = "In the address bar";
  }
  setTimeout(() => (byId("copy-link").textContent = "Link"), 1600);
});

addEventListener("hashchange", () => {
  const at = stepFrom(location.hash);
  if (at) goTo(Number(at) - 1);
  else restore(location.hash);
});

// The page's test of itself.

byId("selftest").addEventListener("click", () => {
  byId("selftest-result").textContent = "testing …";
  ask("tester", { type: "test", expected: about.tests, tokenizer: about.tokenizer });
});
listen("tester", "tested", ({ results }) => {
  const failed = results.filter(({ passed }) => !passed);
  byId("selftest-result").textContent =
    `${results.length - failed.length} passed` + (failed.length ? `, ${failed.length} FAILED` : "");
  byId("tests").innerHTML = results
    .map(({ what, passed }) => `<li class="${passed ? "good" : "bad"}">${passed ? "✓" : "✗"} ${escaped(what)}</li>`)
    .join("");
  byId("tests-passed").hidden = false;
});

// Beginning.

byId("model-name").textContent = about.name;
byId("lead-numbers").innerHTML =
  `${num("parameters", integer(about.parameters))} trained numbers, ${config.num_hidden_layers} layers, ${config.n_routed_experts} experts in each`;
byId("made").innerHTML =
  `Weights: ${about.weights === "fp8" ? `E4M3 with 128 × 128 scales as in V3's release (${percent(about.in_fp8 / about.parameters)} of the numbers; the rest BF16 and float32)` : "float16"}, ${bytes(about.bytes)}. Every sum is made in float64. The whole engine is in this file; view its source. Made by <code>minids page</code>.`;

const wanted = stepFrom(location.hash);
if (wanted) goTo(Number(wanted) - 1);
else if (!restore(location.hash)) {
  if (reducedMotion) state.speed = 100; // the text is there at once and nothing moves
  setText(EXAMPLES[0][1], 90);
}
