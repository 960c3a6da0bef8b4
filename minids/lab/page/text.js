"use strict";
// The text: a field to type in, over coloured tokens with the same letters at the same places.

const input = byId("input");
const tokensShown = byId("tokens");
const spans = [];
const IDLE = 900;
const GOES_ON = 60; // milliseconds without a key until the model goes on, and by how many tokens
let idle = 0;
let goesOn = !reducedMotion;

function backgroundOf(position) {
  const entry = state.entries[position];
  if (!entry) return "";
  if (state.colour === "expert") {
    const route = entry.routes[state.layer];
    return route ? expertColour(firstExpert(route)) : "";
  }
  if (state.colour === "surprise") return entry.logProbability === null ? "" : signed(Math.min(-entry.logProbability / 6, 1));
  if (state.colour === "attention" && state.seen) {
    const weights = state.seen.heads[state.head].weights;
    return position < weights.length ? signed(weights[position] / Math.max(...weights)) : "";
  }
  return "";
}

function drawTokens() {
  const texts = fieldTexts(state.ids);
  const written = texts.join("");
  const at = shown();
  const [servedIn, servedBy] = state.over ?? [state.layer, state.expert];
  while (spans.length > texts.length) spans.pop().remove();
  texts.forEach((text, i) => {
    const entry = state.entries[i];
    const expert = servedBy !== null && entry?.routes[servedIn]?.chosen.includes(servedBy);
    const kind = `${i === at ? "at " : ""}${expert ? "served " : ""}${entry?.pass ? "made" : ""}`;
    const background = backgroundOf(i);
    let span = spans[i];
    if (!span) {
      span = spans[i] = document.createElement("span");
      span.dataset.at = i;
      tokensShown.append(span);
    }
    if (span.textContent !== text) span.textContent = text;
    if (span.className !== kind) span.className = kind;
    if (span.dataset.background !== background) span.style.background = span.dataset.background = background;
  });
  if (input.value !== written && !input.dataset.composing) {
    const atEnd = input.selectionStart >= input.value.length;
    const [from, to] = [input.selectionStart, input.selectionEnd];
    input.value = written;
    if (atEnd) input.setSelectionRange(written.length, written.length);
    else input.setSelectionRange(from, to);
  }
  input.placeholder = "Type something …";
  const surface = byId("surface");
  if (state.playing && state.token === null) surface.scrollTop = surface.scrollHeight;
}

/** Which token holds the character before the caret; null at the very end, where the newest is followed. */
function tokenAtCaret() {
  const caret = input.selectionStart;
  if (caret >= input.value.length) return null;
  let end = 0;
  const texts = fieldTexts(state.ids);
  for (let i = 0; i < texts.length; i++) if ((end += texts[i].length) > Math.max(caret - 1, 0)) return i;
  return null;
}

/** Put the caret behind a token, so that typing and the arrow keys go on from there. */
function pick(position) {
  const last = state.ids.length - 1;
  const begin = tokenizer.bos === null ? 0 : 1;
  position = position === null ? null : Math.min(Math.max(position, Math.min(begin, last)), last);
  change({ token: position === last ? null : position, hover: null });
  const end = fieldTexts(state.ids)
    .slice(0, position === null ? undefined : position + 1)
    .join("").length;
  input.setSelectionRange(end, end);
  askForSeen();
}

/** What was typed becomes tokens: those before the word that changed stay, the rest is cut anew. */
function typed() {
  const texts = fieldTexts(state.ids);
  const old = texts.join("");
  const text = input.value;
  let same = 0;
  while (same < old.length && old[same] === text[same]) same++;
  let keep = 0;
  let end = 0;
  for (let i = 0, sum = 0; i < texts.length && sum + texts[i].length <= same; i++) {
    if (/^\s/.test(texts[i + 1] ?? "") || texts[i] === "") [keep, end] = [i + 1, sum + texts[i].length]; // a word ends here
    sum += texts[i].length;
  }
  const begin = tokenizer.bos !== null && keep === 0 ? [tokenizer.bos] : [];
  replaceTail(keep, [...begin, ...tokenizer.encode(text.slice(end).replace(/␍/g, "\r").replace(/␀/g, "\0"))]);
  change({ token: tokenAtCaret(), hover: null, next: null });
  write(0);
  clearTimeout(idle);
  if (goesOn && text) idle = setTimeout(() => write(GOES_ON), IDLE);
}

function play() {
  clearTimeout(idle);
  if (state.playing) {
    goesOn = false;
    ask("writer", { type: "halt" });
    change({ playing: false, busy: false });
  } else {
    goesOn = true;
    change({ token: null });
    write(about.longest);
  }
}

/** One token more: the very next pass. */
function stepOnce() {
  clearTimeout(idle);
  change({ token: null });
  write(1);
}

input.addEventListener("input", typed);
input.addEventListener("compositionstart", () => (input.dataset.composing = "yes"));
input.addEventListener("compositionend", () => {
  delete input.dataset.composing;
  typed();
});
for (const event of ["keyup", "click"]) {
  input.addEventListener(event, () => {
    change({ token: tokenAtCaret(), hover: null });
    askForSeen();
  });
}
input.addEventListener("pointermove", (event) => {
  const span = document.elementsFromPoint(event.clientX, event.clientY).find((element) => element.dataset?.at);
  const hover = span ? Number(span.dataset.at) : null;
  if (hover === state.hover) return;
  change({ hover });
  askForSeen();
});
input.addEventListener("pointerleave", () => {
  change({ hover: null });
  askForSeen();
});

byId("play").addEventListener("click", play);
byId("step").addEventListener("click", stepOnce);
byId("clear").addEventListener("click", () => {
  setText("");
  input.focus();
});

for (const [id, says] of [
  ["speed", (v) => (v >= 100 ? "all it can" : `${(1000 / pace()).toFixed(0)}/s`)],
  ["temperature", (v) => v.toFixed(2)],
]) {
  const slider = byId(id);
  const say = () => (byId(`${id}-now`).textContent = says(state[id]));
  slider.addEventListener("input", () => {
    state[id] = Number(slider.value);
    say();
    if (state.playing) write(about.longest);
  });
  panel(null, () => {
    slider.value = state[id];
    say();
  });
}
byId("seed").addEventListener("change", () => change({ seed: Math.max(0, Math.round(Number(byId("seed").value) || 0)) }));
byId("colour").addEventListener("change", () => change({ colour: byId("colour").value }));

const EXAMPLES = [
  ["prose", "The value of the "],
  ["code", "def read(self, path):\n    "],
  ["a sum", "What is 7 + 5?\n"],
];
byId("examples").innerHTML = EXAMPLES.map(([name], i) => `<button type="button" data-example="${i}">${name}</button>`).join("");
byId("examples").addEventListener("click", (event) => {
  const button = event.target.closest("[data-example]");
  if (button) setText(EXAMPLES[button.dataset.example][1], reducedMotion ? 0 : GOES_ON);
});

/** Another token at a place, and what the model makes of it. */
byId("alternatives").addEventListener("click", (event) => {
  const button = event.target.closest("[data-id]");
  if (!button) return;
  const at = Number(button.dataset.at);
  replaceTail(at, [Number(button.dataset.id)]);
  change({ token: null, hover: null, next: null });
  write(goesOn ? 24 : 0);
});

function drawAlternatives() {
  const coming = state.token === null && state.hover === null && state.next;
  const at = coming ? state.ids.length : shown();
  const entry = state.entries[at];
  const list = coming ? state.next : entry?.alternatives;
  byId("alternatives-title").textContent = coming ? "What may come next" : "What could have stood here";
  if (!list) {
    put(byId("alternatives"), "");
    byId("alternatives-note").textContent = entry ? "This is where the text begins: nothing comes before it." : "";
    return;
  }
  const rows =
    !coming && !list.some(([id]) => id === entry.id) ? [...list.slice(0, -1), [entry.id, entry.logProbability]] : list;
  put(
    byId("alternatives"),
    rows
      .map(([id, log]) => {
        const p = Math.exp(log);
        const here = !coming && id === entry.id;
        return (
          `<li class="${here ? "here" : ""}"><button type="button" data-id="${id}" data-at="${at}" aria-label="${escaped(tokenizer.name(id))}, ${percent(p)}${here ? ", stands here" : ""}: put it here"><code>${escaped(tokenizer.name(id))}</code>` +
          `<span class="bar"><i style="width:${(100 * p).toFixed(1)}%"></i></span></button>${num("probability", percent(p))}</li>`
        );
      })
      .join(""),
  );
  byId("alternatives-note").textContent = "Press one to put it there and see how the text goes on.";
}

/** Mean loss over the text in nats per token, and in bits per byte. */
function lossOf(entries) {
  const judged = entries.filter((e) => e.logProbability !== null);
  const sum = -judged.reduce((total, e) => total + e.logProbability, 0);
  const size = judged.reduce((total, e) => total + tokenizer.byteCount(e.id), 0);
  return { perToken: sum / judged.length, perByte: sum / Math.LN2 / size };
}

panel("text", () => {
  drawTokens();
  drawAlternatives();
  byId("play").textContent = state.playing ? "Pause" : "Write";
  byId("play").setAttribute("aria-pressed", state.playing);
  byId("seed").value = state.seed;
  byId("colour").value = state.colour;
  const { perToken, perByte } = lossOf(state.entries);
  const newest = state.ids[state.ids.length - 1];
  const said = [`${num("token", integer(state.ids.length))} of ${integer(about.longest)} tokens`];
  if (Number.isFinite(perToken))
    said.push(`loss ${num("surprise", perToken.toFixed(2))} nats a token, ${perByte.toFixed(2)} bits a byte`);
  if (state.rate > 1 && Number.isFinite(state.rate)) said.push(`${num("rate", integer(state.rate))} tokens a second`);
  if (!state.playing && newest === tokenizer.eos) said.push("the model ended its document here");
  put(byId("status"), said.join(" · "));
});
