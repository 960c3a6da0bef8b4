"use strict";
// Multi-token prediction: the guess at every token, whether it stood, and how many tokens a pass gave.

const MOST_GUESSES = 60;

function drawStrip() {
  const begin = Math.max(tokenizer.bos === null ? 0 : 1, state.entries.length - MOST_GUESSES);
  const passes = [];
  for (let i = begin; i < state.entries.length; i++) {
    const entry = state.entries[i];
    const last = passes[passes.length - 1];
    if (last && entry.pass && last.pass === entry.pass) last.entries.push(entry);
    else passes.push({ pass: entry.pass, entries: [entry] });
  }
  const chip = (entry) => {
    const { guess, id, position } = entry;
    const name = escaped(tokenizer.name(id));
    const on = position === shown() ? " on" : "";
    const guessed = guess ? escaped(tokenizer.name(guess.id)) : "";
    const kind = !guess ? "none" : guess.stood ? "good" : "bad";
    const says = !guess
      ? "no guess was made at this token"
      : guess.stood
        ? `guessed ${guessed}: right`
        : `guessed ${guessed}: wrong, it is ${name}`;
    return `<button type="button" class="guess ${kind}${on}" data-at="${position}" tabindex="-1" aria-label="${name}, ${says}" data-x="stood" data-say="“${name}”: ${says}"><span>${name}</span><small>${!guess ? "·" : guess.stood ? `✓` : `<s>${guessed}</s>`}</small></button>`;
  };
  put(
    byId("guess-strip"),
    passes
      .map(
        ({ pass, entries }) =>
          `<span class="pass${pass ? "" : " typed"}${entries.length > 1 ? " many" : ""}">${entries.map(chip).join("")}</span>`,
      )
      .join(""),
  );
}

byId("guess-strip").addEventListener("click", (event) => {
  const chip = event.target.closest("[data-at]");
  if (chip) pick(Number(chip.dataset.at));
});
byId("guess-strip").addEventListener("pointerover", (event) => {
  const chip = event.target.closest("[data-at]");
  change({ hover: chip ? Number(chip.dataset.at) : null });
});
byId("guess-strip").addEventListener("pointerleave", () => change({ hover: null }));
byId("guess-strip").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  event.stopPropagation();
  event.preventDefault();
  pick(shown() + by);
});
byId("guess-count").addEventListener("input", () => {
  change({ guesses: Number(byId("guess-count").value) });
  if (state.playing) write(about.longest);
});
byId("guess-write").addEventListener("click", () => {
  if (!state.guesses) change({ guesses: 1 });
  change({ token: null });
  write(40);
});

panel("guesses", () => {
  byId("guess-count").value = state.guesses;
  byId("guess-now").textContent = state.guesses || "none";
  if (!config.num_nextn_predict_layers) return put(byId("guess-note"), "This model has no MTP module.");
  const guessed = state.entries.filter((e) => e.guess);
  const made = state.entries.filter((e) => e.pass);
  const judged = made.filter((e) => e.guess?.judged);
  const passes = new Set(made.map((e) => e.pass)).size;
  const right = guessed.filter((e) => e.guess.stood).length;
  const tile = (key, value, words) => `<div>${num(key, value)}<span>${words}</span></div>`;
  put(
    byId("guess-numbers"),
    tile("stood", guessed.length ? percent(right / guessed.length) : "–", `of ${integer(guessed.length)} guesses were right`) +
      tile(
        "perpass",
        judged.length && passes ? (made.length / passes).toFixed(2) : "1.00",
        judged.length
          ? `tokens a pass, ${integer(made.length)} tokens in ${integer(passes)} passes`
          : "token a pass: no guesses were used yet",
      ) +
      tile("stood", "85 – 90 %", "of V3's guesses stand; its texts come 1.8 times as fast"),
  );
  drawStrip();
  return put(
    byId("guess-note"),
    "Above, the token that stands; below, the guess that was made one pass earlier. A frame holds the tokens of one pass. At temperature 0 a text with guesses is the same text, token by token; above 0 it is drawn from the same distribution.",
  );
});
byId("guess-count").closest(".sliders").hidden = !config.num_nextn_predict_layers;
