"use strict";
// The cache: this text in four kinds of it, number by number, and the same at the sizes of published models.

const PAIR = config.qk_nope_head_dim + config.v_head_dim; // key and value of one head
const KINDS = ["mha", "gqa", "mqa", "mla"];
const NAMES = { mha: "MHA", gqa: "GQA", mqa: "MQA", mla: "MLA" };
const CARD = 80e9;
const PAGE = 500; // bytes of a card; tokens of a page

/** Numbers per token and layer of each kind, with a model's own heads: V2 report, Table 1. */
function cacheNumbers({ heads, pair, groups, latent }) {
  return { mha: heads * pair, gqa: Math.min(groups, heads) * pair, mqa: pair, mla: latent };
}

const hereNumbers = cacheNumbers({
  heads: config.num_attention_heads,
  pair: PAIR,
  groups: Math.max(1, config.num_attention_heads >> 1),
  latent: config.kv_lora_rank + config.qk_rope_head_dim,
});

// Sizes of the published config.json files. `keeps`: the kind of cache that the model itself has.
const MODELS = {
  "DeepSeek-V3": { layers: 61, heads: 128, pair: 256, groups: 8, latent: 576, keeps: "mla" },
  "DeepSeek-V2": { layers: 60, heads: 128, pair: 256, groups: 8, latent: 576, keeps: "mla" },
  "DeepSeek-V2-Lite": { layers: 27, heads: 16, pair: 256, groups: 8, latent: 576, keeps: "mla" },
  "Kimi K2": { layers: 61, heads: 64, pair: 256, groups: 8, latent: 576, keeps: "mla" },
  "Moonlight-16B-A3B": { layers: 27, heads: 16, pair: 256, groups: 8, latent: 576, keeps: "mla" },
  "Llama-3.1-405B": { layers: 126, heads: 128, pair: 256, groups: 8, latent: 0, keeps: "gqa" },
  "Qwen2.5-72B": { layers: 80, heads: 64, pair: 256, groups: 8, latent: 0, keeps: "gqa" },
};

/** What a config.json says about a cache; throws a sentence where it says too little. */
function fromConfigJson(text) {
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    throw new Error("This is no JSON.");
  }
  const need = (...names) => {
    const name = names.find((n) => Number.isInteger(json[n]) && json[n] > 0 && json[n] < 1e6);
    if (!name) throw new Error(`It does not say ${names.join(" or ")}.`);
    return json[name];
  };
  const layers = need("num_hidden_layers", "n_layer");
  const heads = need("num_attention_heads", "n_head");
  if (json.kv_lora_rank) {
    const pair = need("qk_nope_head_dim") + need("v_head_dim");
    return { layers, heads, pair, groups: 8, latent: need("kv_lora_rank") + need("qk_rope_head_dim"), keeps: "mla" };
  }
  const size = json.head_dim > 0 ? need("head_dim") : need("hidden_size", "n_embd") / heads;
  const groups = json.num_key_value_heads ?? heads;
  return { layers, heads, pair: 2 * size, groups, latent: 0, keeps: groups === 1 ? "mqa" : groups < heads ? "gqa" : "mha" };
}

let expandedKeys = null;
let askedKeys = "";
listen("writer", "expanded", ({ id, rows }) => {
  if (id !== askedKeys) return;
  expandedKeys = rows;
  redraw();
});

/** Four columns, one row per token, every square one number of the picked layer; all at one scale. */
function drawColumns() {
  const T = state.entries.length;
  const holder = byId("cache-columns");
  const at = shown();
  const key = [writing, T, state.layer].join();
  if (key !== askedKeys && T && !(state.playing && state.speed >= 90)) {
    askedKeys = key;
    ask("writer", { type: "expand", id: key, layer: state.layer });
  }
  if (!holder.firstChild) {
    holder.innerHTML = KINDS.map(
      (kind) => `<figure class="${kind}"><figcaption></figcaption><canvas role="img"></canvas><p></p></figure>`,
    ).join("");
  }
  const gap = 18;
  const narrow = holder.clientWidth < 620;
  const all = KINDS.reduce((sum, kind) => sum + hereNumbers[kind], 0); // narrow: one below the other
  const cell = narrow
    ? holder.clientWidth / Math.max(...Object.values(hereNumbers))
    : Math.max((holder.clientWidth - 3 * gap) / all, 0.5);
  const most = narrow ? 24 : 64;
  const rows = Math.min(T, most);
  const first = T - rows;
  const high = Math.max(3, Math.min(5, cell * 2));
  const d_c = config.kv_lora_rank;
  const scale = 2.2;
  holder.style.gridTemplateColumns = narrow
    ? "100%"
    : KINDS.map((kind) => `${(hereNumbers[kind] * cell).toFixed(1)}px`).join(" ");
  KINDS.forEach((kind, k) => {
    const figure = holder.children[k];
    const numbers = hereNumbers[kind];
    const width = numbers * cell;
    const bytesNow = numbers * config.num_hidden_layers * T * 2;
    put(figure.querySelector("figcaption"), `<b>${NAMES[kind]}</b> ${num(kind, integer(numbers))}`);
    put(figure.querySelector("p"), num("bytes", bytes(bytesNow)));
    const canvas = figure.querySelector("canvas");
    canvas.setAttribute("aria-label", `${NAMES[kind]}: ${numbers} numbers a token and layer, ${bytes(bytesNow)} for this text`);
    paint(canvas, width, most * high, (context) => {
      context.fillStyle = colourOf("well");
      context.fillRect(0, 0, width, most * high);
      for (let r = 0; r < rows; r++) {
        const entry = state.entries[first + r];
        const values = kind === "mla" ? entry?.latents[state.layer] : kind === "mha" ? expandedKeys?.[first + r] : null;
        for (let i = 0; i < numbers; i++) {
          context.fillStyle = values && i < values.length ? signed(values[i] / scale) : colourOf("unknown");
          context.fillRect(i * cell, r * high, cell + 0.3, high - 0.5);
        }
        if (first + r === at) {
          context.strokeStyle = colourOf("ink");
          context.strokeRect(0.5, r * high, width - 1, high - 0.5);
        }
      }
      if (kind === "mla") {
        context.fillStyle = colourOf("ink");
        context.fillRect(d_c * cell - 0.5, 0, 1, rows * high);
      }
    });
  });
  const ratio = hereNumbers.mha / hereNumbers.mla;
  put(
    byId("cache-note"),
    `Each row is a token, each square one number of layer ${state.layer + 1}${T > most ? `; the last ${most} of ${integer(T)} tokens` : ""}. ` +
      `MLA's are the real ones: ${num("latent", config.kv_lora_rank)} of the latent, then ${num("ropekey", config.qk_rope_head_dim)} of the RoPE key. MHA's are the keys and values of all ${config.num_attention_heads} heads, made from them: ` +
      `<b>${ratio.toFixed(1)} times as many</b>, and nothing in them that the latent does not hold. GQA and MQA are drawn by size alone; this model has no such keys. ` +
      `At V3's size the factor is <b>${(32768 / 576).toFixed(0)}</b>.`,
  );
}

function drawLarge() {
  const model = MODELS[state.known];
  const numbers = cacheNumbers(model);
  const tokens = state.context * state.conversations;
  const kinds = KINDS.filter((kind) => numbers[kind] > 0);
  const perToken = (kind) => numbers[kind] * model.layers * 2;
  const needed = kinds.map((kind) => perToken(kind) * tokens);
  const most = Math.max(...needed, CARD * 1.15);
  const width = 560;
  const left = 58;
  const high = 58;
  const x = (value) => left + (value / most) * (width - left - 10);
  const bars = kinds.map((kind, i) => {
    const says = `${integer(numbers[kind])} numbers × ${model.layers} layers × 2 bytes × ${integer(tokens)} tokens`;
    const shape = `class="fill ${kind}" rx="2" data-x="${kind}" data-say="${says}"`;
    return rect(left, 26 + i * high, x(needed[i]) - left, 28, shape);
  });
  const line = `<line x1="${x(CARD)}" x2="${x(CARD)}" y1="16" y2="${26 + kinds.length * high - 8}" class="limit"/>`;
  const words = kinds.map((kind, i) => {
    const y = 26 + i * high;
    const full = needed[i] > CARD;
    const end = x(needed[i]);
    const inside = needed[i] / most > 0.8; // no room behind the bar
    const atLine = inside && end - x(CARD) < 70 ? Math.min(end, x(CARD)) : end;
    return (
      label(left - 10, y + 19, NAMES[kind], `text-anchor="end" class="name${kind === model.keeps ? " kept" : ""}"`) +
      label(
        inside ? atLine - 8 : end + 6,
        y + 19,
        bytes(needed[i]),
        inside ? `text-anchor="end" class="inside"` : `class="value"`,
      ) +
      label(
        left,
        y + 43,
        `${integer(perToken(kind))} bytes a token${full ? " · more than the card" : ""}`,
        `class="small over${full ? " bad" : ""}"`,
      )
    );
  });
  words.push(label(x(CARD), 11, "80 GB", `text-anchor="middle" class="small"`));
  put(
    byId("bars"),
    svg(
      width,
      26 + kinds.length * high,
      [...bars, line, ...words].join(""),
      `Memory for ${integer(tokens)} tokens: ${kinds.map((kind, i) => `${NAMES[kind]} ${bytes(needed[i])}`).join(", ")}`,
    ),
  );
  const full = Math.floor(CARD / perToken("mha"));
  const keeps = model.keeps;
  put(
    byId("full-note"),
    tokens >= full
      ? `<b class="bad">MHA is full</b> since token ${num("mha", integer(full))}. ${NAMES[keeps]} has used ${percent((perToken(keeps) * tokens) / CARD)} of the card.`
      : `MHA runs full at token ${num("mha", integer(full))}; ${integer(tokens)} are there. ${NAMES[keeps]} has used ${percent((perToken(keeps) * tokens) / CARD)} of the card.`,
  );
  put(
    byId("quality"),
    numbers.mla
      ? "MQA keeps still less and costs quality; MLA does not. On the benchmark BBH, 7B models: MHA 37.0, GQA 35.6, MQA 33.2; a large mixture of experts: MHA 46.6, MLA 50.7 (V2 report, Tables 8 and 9)."
      : `${NAMES[model.keeps]} is what this model keeps.`,
  );
  drawPages(
    kinds.map((kind) => [kind, Math.round(CARD / perToken(kind) / PAGE)]),
    keeps,
  );
}

/** One small sheet per page of text: all at one scale, so that areas can be compared. */
function drawPages(counts, keeps) {
  const holder = byId("pages");
  if (holder.children.length !== counts.length)
    holder.innerHTML = counts.map(() => `<figure><figcaption></figcaption><canvas role="img"></canvas></figure>`).join("");
  const most = Math.max(...counts.map(([, count]) => count));
  const width = Math.max((holder.clientWidth - 14 * (counts.length - 1)) / counts.length, 40);
  const sheet = Math.max(2, Math.min(7, Math.sqrt((width * 250) / Math.min(most, 60000) / 1.3)));
  const columns = Math.floor(width / sheet);
  counts.forEach(([kind, count], i) => {
    const figure = holder.children[i];
    const rows = Math.min(Math.ceil(count / columns), 60000 / columns);
    figure.className = `${kind} ${kind === keeps ? "kept" : ""}`;
    put(figure.querySelector("figcaption"), `<b>${NAMES[kind]}</b><span class="big">${num(kind, integer(count))}</span> pages`);
    const canvas = figure.querySelector("canvas");
    canvas.setAttribute("aria-label", `${NAMES[kind]}: ${integer(count)} pages of text on one 80 GB card`);
    paint(canvas, width, Math.max(rows * sheet * 1.3, 4), (context) => {
      context.fillStyle = colourOf(kind);
      for (let n = 0; n < Math.min(count, rows * columns); n++) {
        context.fillRect((n % columns) * sheet, Math.floor(n / columns) * sheet * 1.3, sheet - 0.8, sheet * 1.3 - 0.8);
      }
    });
  });
}

/** Let the context grow until MHA's cache is full: the sliders move by themselves. */
function fillUp() {
  const model = MODELS[state.known];
  const full = CARD / (cacheNumbers(model).mha * model.layers * 2);
  const goal = Math.min(160000, Math.ceil(full / 1000) * 1000);
  if (reducedMotion) return change({ context: goal, conversations: 1 });
  const began = performance.now();
  const frame = (now) => {
    const share = Math.min((now - began) / 3500, 1);
    change({ context: Math.max(1000, Math.round((goal * share) / 100) * 100), conversations: 1 });
    if (share < 1) requestAnimationFrame(frame);
  };
  return requestAnimationFrame(frame);
}

for (const [id, value] of [
  ["tab-here", "here"],
  ["tab-large", "large"],
])
  byId(id).addEventListener("click", () => change({ sizes: value }));
byId("cache")
  .querySelector("[role=tablist]")
  .addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.stopPropagation();
    change({ sizes: state.sizes === "here" ? "large" : "here" });
    byId(state.sizes === "here" ? "tab-here" : "tab-large").focus();
  });
byId("context").addEventListener("input", () => change({ context: Number(byId("context").value) }));
byId("conversations").addEventListener("input", () => change({ conversations: Number(byId("conversations").value) }));
byId("known").addEventListener("change", () => change({ known: byId("known").value }));
byId("run-full").addEventListener("click", fillUp);
byId("use-pasted").addEventListener("click", () => {
  try {
    MODELS.pasted = fromConfigJson(byId("pasted").value);
    byId("pasted-note").textContent =
      `Taken: ${MODELS.pasted.layers} layers, ${MODELS.pasted.heads} heads, ${NAMES[MODELS.pasted.keeps]}.`;
    change({ known: "pasted" });
  } catch (error) {
    byId("pasted-note").textContent = error.message;
  }
});

panel("cache", () => {
  const here = state.sizes === "here";
  for (const [name, on] of [
    ["here", here],
    ["large", !here],
  ]) {
    byId(`cache-${name}`).hidden = !on;
    byId(`tab-${name}`).setAttribute("aria-selected", on);
    byId(`tab-${name}`).tabIndex = on ? 0 : -1;
  }
  if (here) return drawColumns();
  put(
    byId("known"),
    Object.keys(MODELS)
      .map((name) => `<option>${name}</option>`)
      .join(""),
  );
  byId("known").value = state.known;
  byId("context").value = state.context;
  byId("conversations").value = state.conversations;
  byId("context-now").textContent = `${integer(state.context)} tokens`;
  byId("conversations-now").textContent = state.conversations;
  return drawLarge();
});
