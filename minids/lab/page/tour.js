"use strict";
// The guided tour: a dozen steps, each of which sets the page to a state. `#step=4` in the address is the fourth.

const groupsWords = hasGroups ? `${config.n_group} groups of ${EACH}` : "one group";

const STEPS = [
  {
    show: "text",
    title: "A whole DeepSeek‑V3, in one file",
    words: `<p>A trained model writes here. It is small, <b>${integer(about.parameters)}</b> numbers where V3 has 671 billion, but it has every part of V3, and all of it is computed here while you watch.</p><p>Each piece is a <b>token</b>. Its colour is the expert that had most to say.</p>`,
    set: () => (enoughText() ? write(reducedMotion ? 0 : 40) : setText(EXAMPLES[0][1], 90)),
    patch: { colour: "expert" },
  },
  {
    show: "text",
    title: "One token at a time",
    words: `<p>For every next token the model gives each of ${integer(config.vocab_size)} possible ones a <b>probability</b>, and one is drawn.</p><p>Point at any token: the list shows what else could have stood there. Press another, and the text goes on from it.</p>`,
    patch: { colour: "surprise" },
    at: 0.5,
  },
  {
    show: "cache",
    title: "To go on, it must remember",
    words: `<p>Every new token looks back at all earlier ones, so something of each has to be kept: the <b>cache</b>.</p><p>Four ways to keep it, one row a token. Ordinary attention, <b>MHA</b>, keeps keys and values of every head. <b>MLA</b> keeps one short latent for all heads.</p>`,
    patch: { sizes: "here" },
  },
  {
    show: "cache",
    title: "At V3's size: 40 pages or 2,277",
    words: `<p>With V3's sizes one token of MHA takes 3,997,696 bytes, one of MLA 70,272: <b>57 times less</b>.</p><p>A card of 80 GB holds 40 pages of text as MHA, and 2,277 as MLA. Press <b>Fill it up</b>: at token 20,011 MHA is full.</p>`,
    patch: { sizes: "large", known: "DeepSeek-V3", context: 20000, conversations: 1 },
  },
  {
    show: "attention",
    part: "latents",
    title: "What is kept instead",
    words: `<p>The token's state is pressed into <b class="latent">${config.kv_lora_rank} numbers</b>, the latent. Keys and values of all ${config.num_attention_heads} heads can be made from it.</p><p>They never are: the query goes down to the latent instead. Mathematically it is the same.</p>`,
    at: 0.6,
  },
  {
    show: "attention",
    part: "weights",
    title: "Position goes beside it",
    words: `<p>Where a token stands is told by turning pairs of numbers. That would block the trick with the latent, so position has <b class="rope">${config.qk_rope_head_dim} numbers</b> of its own: one key for all heads.</p><p>Every weight is the softmax of two parts, <b class="latent">content</b> and <b class="rope">position</b>. Change the head above.</p>`,
    patch: { head: Math.min(1, config.num_attention_heads - 1) },
    at: 0.75,
  },
  {
    show: "router",
    part: "wall",
    title: "Few of many",
    words: `<p>Each layer has ${E} experts, small networks. A token is sent to ${CHOSEN} of them; the rest does nothing for it.</p><p>The line is the picked token's way through the wall. Pick other tokens: it moves.</p>`,
    patch: { wall: "here", expert: null },
    at: 0.6,
    withText: true,
  },
  {
    show: "router",
    part: "story",
    title: "Who chooses?",
    words: `<p>Nobody in charge. Each expert gets a <b>score</b> for the token. A <b>bias</b> is added. Experts live in ${groupsWords}; weak groups <b>go dark</b>, with their best expert. Of the rest the <b>${CHOSEN} best</b> work.</p><p>Go through the six small steps with the dots.</p>`,
    patch: { story: 0 },
    at: 0.6,
  },
  {
    show: "router",
    part: "story",
    title: "The bias says who, never how much",
    words: `<p>Without a push a few experts would get all tokens. V3 counts: overloaded experts are lowered a little after every batch, idle ones raised. No loss term, so nothing pulls at the text.</p><p>Move the bias of one expert up to 1: it works on every token. Its <b>gate</b> still comes from the plain score.</p>`,
    patch: { story: 5 },
    at: 0.6,
  },
  {
    show: "router",
    part: "wall",
    title: "V3's own wall",
    words: `<p>58 layers of 256 experts: <b>14,848</b>. A token lights <b>464</b> of them. So 671 billion numbers are kept, and 37 billion work on a token.</p><p>In each layer at most 4 of 8 groups are lit: a group is a node, and less has to be sent between nodes.</p>`,
    patch: { wall: "v3" },
    at: 0.6,
  },
  {
    show: "guesses",
    title: "A guess ahead",
    words: `<p>An extra block guesses the token after the next. The model checks the guess in the same pass: <b class="good">right ones</b> are a token for nothing, <b class="bad">wrong ones</b> are replaced.</p><p>The text is the same as without. Press <b>Write 40 tokens</b> and count tokens per pass. V3 writes 1.8 times as fast so.</p>`,
    patch: { guesses: Math.min(1, config.num_nextn_predict_layers) },
    set: () => (state.ids.length + 40 < about.longest && !reducedMotion ? write(40) : undefined),
  },
  {
    show: "mistakes",
    title: "When one line is wrong",
    words: `<p>Most wrong lines still give a text, and a loss that falls in training. That is why they were in public code for months.</p><p>Here the same weights read the same text twice: with the right line and with the wrong one.</p>`,
    set: () => compare(MISTAKES.rope_in_the_other_layout.fits(config) ? "rope_in_the_other_layout" : fitting[0][0]),
  },
  {
    show: "text",
    title: "Now you",
    words: `<p>What is cached? <b>One latent and one RoPE key per token and layer.</b></p><p>Who chooses the experts? <b>Each expert's score plus a bias, best groups first.</b></p><p>Type something of your own. Everything you saw follows it.</p>`,
    patch: { colour: "expert", token: null },
  },
];

let step = null;
let focusBefore = null;
const enoughText = () => state.ids.length >= 48;

/** Show a step of the tour; null leaves it. */
function goTo(next) {
  const entering = step === null && next !== null;
  step = next === null ? null : Math.min(Math.max(next, 0), STEPS.length - 1);
  const root = document.documentElement;
  for (const section of document.querySelectorAll("main > section")) section.classList.remove("on-stage");
  byId("tour").hidden = step === null;
  if (step === null) {
    delete root.dataset.tour;
    delete root.dataset.part;
    history.replaceState(null, "", location.pathname + location.search);
    (focusBefore ?? byId("tour-start")).focus();
    return redraw();
  }
  if (entering) focusBefore = document.activeElement;
  const { show, part, title, words, patch, at, set, withText } = STEPS[step];
  root.dataset.tour = show;
  if (part) root.dataset.part = part;
  else delete root.dataset.part;
  byId(show).classList.add("on-stage");
  byId("text").classList.toggle("on-stage", show === "text" || Boolean(withText));
  byId("tour-count").textContent = `${step + 1} of ${STEPS.length}`;
  byId("tour-title").textContent = title;
  byId("tour-words").innerHTML = words;
  byId("tour-back").disabled = step === 0;
  byId("tour-on").textContent = step === STEPS.length - 1 ? "Play with it" : "On ›";
  history.replaceState(null, "", `#step=${step + 1}`);
  byId("tour-title").focus({ preventScroll: true });
  scrollTo(0, 0);
  const place = () => change({ token: at ? Math.max(2, Math.floor(state.entries.length * at)) : null });
  change({ hover: null, ...patch });
  place();
  afterWriting = () => {
    // a text that was only begun: the token is picked once it is there
    if (at) place();
    askForSeen();
    if (show === "mistakes") set();
    afterWriting = null;
  };
  if (!enoughText() && step > 0) setText(EXAMPLES[0][1], 90, true);
  else if (!state.playing && show !== "guesses") afterWriting = null;
  if (at && !routeShown() && show === "router") change({ layer: moeLayers[moeLayers.length - 1] ?? 0 });
  askForSeen();
  return set?.();
}

const stepFrom = (hash) => /(?:^#|&)step=(\d+)/.exec(hash)?.[1];

byId("tour-start").addEventListener("click", () => goTo(0));
byId("tour-back").addEventListener("click", () => goTo(step - 1));
byId("tour-on").addEventListener("click", () => goTo(step === STEPS.length - 1 ? null : step + 1));
byId("tour-end").addEventListener("click", () => goTo(null));
byId("tour-full").addEventListener("click", () =>
  document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen?.(),
);
document.addEventListener("keydown", (event) => {
  if (step === null || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) return;
  const by = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 }[event.key];
  if (by) {
    event.preventDefault();
    if (step + by < STEPS.length) goTo(step + by);
  } else if (event.key === "Escape" && !document.fullscreenElement) goTo(null);
  else if (event.key === "f") byId("tour-full").click();
});
