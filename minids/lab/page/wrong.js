"use strict";
// One wrong line: what a mistake does to the loss, to the choices and to the text; and a switch that makes it everywhere.

const fitting = Object.entries(MISTAKES).filter(([, mistake]) => mistake.fits(config));
const MOST_READ = 160;
const GOES_WRONG = 36; // tokens that are read, and tokens that are written after them
let found = null;
let comparing = "";

function compare(name) {
  const tokens = state.ids.slice(0, Math.max(8, Math.min(MOST_READ, about.longest - GOES_WRONG)));
  comparing = `${name} ${tokens.length} ${Date.now()}`;
  found = null;
  change({ compared: name });
  if (tokens.length > 1)
    ask("checker", {
      type: "compare",
      id: comparing,
      mistake: name,
      tokens,
      more: GOES_WRONG,
      settings: { ...variation(), stop: tokenizer.eos },
    });
}

listen("checker", "compared", (result) => {
  if (result.id !== comparing) return;
  found = { ...result, tokens: state.ids.slice(0, result.right.losses.length) };
  redraw();
});

function bars(right, wrong, most, says) {
  const row = (kind, value) =>
    `<div class="pair-row"><span>${kind}</span><span class="bar"><i class="${kind}" style="width:${Math.min((100 * value) / most, 100).toFixed(1)}%"></i></span><b>${says(value)}</b></div>`;
  return row("right", right) + row("wrong", wrong);
}

/** The end of the text and how it goes on, marked from the first token that is not the right one. */
function continued(ids, right) {
  const split = ids.findIndex((id, i) => id !== right[i]);
  const cut = split < 0 ? ids.length : split;
  const before = found.tokens.slice(-8);
  return `<pre><span class="muted">… ${escaped(tokenizer.decode(before))}</span>${escaped(tokenizer.decode(ids.slice(0, cut)))}<mark>${escaped(tokenizer.decode(ids.slice(cut)))}</mark></pre>`;
}

function drawFound() {
  const name = state.compared;
  const mistake = MISTAKES[name];
  const holder = byId("mistake-found");
  if (!name) return put(holder, `<p class="note empty">Pick a mistake on the left.</p>`);
  const [right, wrong] = mistake.line;
  const on = state.mistake === name;
  const head =
    `<h3>${mistake.title}</h3><p>${mistake.says}</p><pre class="diff"><span class="minus">${escaped(wrong)}</span>\n<span class="plus">${escaped(right)}</span></pre>` +
    `<p><button type="button" id="mistake-switch" data-focus="switch" aria-pressed="${on}" class="${on ? "danger" : ""}">${on ? "Switch it off again" : "Switch it on for the whole page"}</button></p>`;
  if (!found)
    return put(
      holder,
      `${head}<p class="note">${state.ids.length > 1 ? "Reading the text twice …" : "There is no text to read yet."}</p>`,
    );
  const { right: a, wrong: b, choices, other } = found;
  const most = Math.max(a.loss, b.loss);
  const same = a.loss === b.loss && !other;
  return put(
    holder,
    head +
      `<h4>${num("loss", `Loss of the ${found.tokens.length === state.ids.length ? "text" : `text's first ${found.tokens.length} tokens`}`)}, nats a token</h4>${bars(a.loss, b.loss, most, (v) => v.toFixed(3))}` +
      `<div class="numbers small-numbers"><div>${num("choices", percent(other / Math.max(choices, 1)))}<span>of choices of experts are others</span></div>` +
      (config.num_nextn_predict_layers
        ? `<div>${num("stood", `${percent(a.right)} → ${percent(b.right)}`)}<span>of MTP guesses are right</span></div>`
        : "") +
      `<div>${num("mla", a.numbers === b.numbers ? integer(a.numbers) : `${integer(a.numbers)} → ${integer(b.numbers)}`)}<span>numbers in the cache, per token and layer</span></div></div>` +
      `<h4>How it goes on <span class="muted">(always the likeliest token)</span></h4><div class="versus"><div><span class="small">right</span>${continued(a.continuation, a.continuation)}</div><div><span class="small">wrong</span>${continued(b.continuation, a.continuation)}</div></div>` +
      (same
        ? `<p class="note strong">On this text it changes nothing${name === "groups_set_to_zero" ? ": no biased score is below 0. Move a bias to −1 in the router and compare again" : ""}. That is why such a line lives long.</p>`
        : ""),
  );
}

byId("mistake-found").addEventListener("click", (event) => {
  if (event.target.id !== "mistake-switch") return;
  change({ mistake: state.mistake === state.compared ? null : state.compared });
  write(0);
});

panel("mistakes", () => {
  radios(
    byId("mistake-list"),
    fitting.map(([name, { title }]) => [name, `${title}${state.mistake === name ? " <em>on</em>" : ""}`]),
    state.compared ?? "",
    compare,
  );
  if (!state.compared) byId("mistake-list").querySelector("[data-value]").tabIndex = 0;
  drawFound();
});
