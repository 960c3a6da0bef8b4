"use strict";
// What a number is: its name, its equation in the report, its formula and its shape. Shown where one points or tabs to it.

const EXPLAINED = {
  token: [
    "A token",
    "",
    "",
    "One piece of text; the model reads and writes nothing smaller. This one's number in a vocabulary of " +
      config.vocab_size.toLocaleString("en") +
      ".",
  ],
  probability: [
    "Probability of a token",
    "",
    "p = softmax(W_head · h)",
    `From the last state h (${config.hidden_size}) the head makes one logit for each of ${config.vocab_size} tokens.`,
  ],
  temperature: [
    "Temperature",
    "",
    "p = softmax(logits / temperature)",
    "0 always takes the likeliest token; 1 draws from the model's own distribution. The same seed draws the same text again.",
  ],
  surprise: [
    "Loss of a token",
    "eq. 24 without MTP",
    "−ln p(token | text before)",
    "In nats: 0 where the model was sure of it. Divided by ln 2 and by the token's bytes it is bits per byte.",
  ],
  rate: [
    "Tokens per second",
    "",
    "",
    "Of this page in this browser, on one core, as it was just measured. The pace of writing is set by the slider.",
  ],
  parameters: [
    "Parameters",
    "",
    "",
    "Numbers that were learned. Matrices lie in this file as V3's release stores them: 8-bit floats (E4M3), one scale for every 128 × 128.",
  ],
  mha: [
    "MHA: multi-head attention",
    "V2 report, Table 1",
    "2 · heads · d_h",
    `Numbers per token and layer if every head kept its own key and value; here ${config.num_attention_heads} · (${config.qk_nope_head_dim} + ${config.v_head_dim}).`,
  ],
  gqa: ["GQA: grouped-query attention", "V2 report, Table 1", "2 · groups · d_h", "Several heads share one key and value."],
  mqa: [
    "MQA: multi-query attention",
    "V2 report, Table 1",
    "2 · d_h",
    "All heads share one key and value. Small, and it costs quality: in DeepSeek's comparison of 7B models BBH fell from 37.0 (MHA) to 33.2 (V2 report, Table 8).",
  ],
  mla: [
    "MLA: multi-head latent attention",
    "eqs 1, 3",
    "d_c + d_r",
    `One latent of ${config.kv_lora_rank} numbers and one RoPE key of ${config.qk_rope_head_dim} for all heads, per token and layer.`,
  ],
  bytes: ["Bytes of the cache", "", "numbers · layers · tokens · 2", "Two bytes a number (BF16). 1 GB is 10⁹ bytes."],
  score: [
    "Score of an expert",
    "eq. 15",
    config.scoring_func === "sigmoid" ? "s = sigmoid(u · e)" : "s = softmax(u · e)",
    `How well the token suits the expert: u (${config.hidden_size}) times the expert's own vector e.`,
  ],
  bias: [
    "Bias of an expert",
    "eq. 16",
    "s + b",
    "Moved in training, by a fixed step after every batch: down where the expert had too many tokens, up where too few. It decides who is chosen, not how much is said.",
  ],
  group: [
    "Score of a group",
    "sec. 2.1.2",
    "best + second best of s + b",
    "In V3 a group is a node of eight GPUs: a token may go to 4 of 8 nodes, so that little has to be sent.",
  ],
  kept: [
    "Groups kept",
    "sec. 2.1.2",
    `${config.topk_group} of ${config.n_group}`,
    "Experts of the other groups are set to −∞: they cannot be chosen, however good.",
  ],
  gate: [
    "Gate of an expert",
    "eqs 13, 14",
    `g = ${config.routed_scaling_factor} · s / Σ s`,
    "How much of the expert's answer is added. Taken from the score without the bias.",
  ],
  load: [
    "Load of an expert",
    "",
    "tokens it got / even share",
    `An even share would be ${config.num_experts_per_tok} / ${config.n_routed_experts} of all tokens.`,
  ],
  maxvio: ["MaxVio", "Wang et al. 2024, eq. 4", "largest load / even share − 1", "0: every expert has the same load."],
  content: [
    "Content score",
    "eq. 10",
    "q^C · k^C · scale = (W^UKᵀ q^C) · c^KV · scale",
    `The query goes down to the latent (${config.kv_lora_rank}) instead of the latent being made into a key (${config.qk_nope_head_dim}): the same number, and no key is stored.`,
  ],
  position: [
    "Position score",
    "eqs 8-10",
    "q^R · k^R · scale",
    `Both are turned by an angle that grows with the position; their product depends on the distance. ${config.qk_rope_head_dim} numbers, one key for all heads.`,
  ],
  weight: [
    "Attention weight",
    "eq. 10",
    "softmax(content + position)",
    "How much of that token's value comes in. The weights of a head add up to 1.",
  ],
  latent: [
    "The latent c^KV",
    "eq. 1",
    "W^DKV · h, then RMSNorm",
    `${config.kv_lora_rank} numbers from a state of ${config.hidden_size}. Keys and values of all ${config.num_attention_heads} heads are made from it.`,
  ],
  ropekey: [
    "The RoPE key k^R",
    "eq. 3",
    "RoPE(W^KR · h)",
    `${config.qk_rope_head_dim} numbers, turned in pairs by position · frequency. Kept beside the latent, because turning stands in the way of absorbing.`,
  ],
  guesses: [
    "Guesses a pass",
    "eqs 21-23",
    "h¹ = TRM(M [norm(h⁰) ; norm(Emb(t))])",
    `${config.num_nextn_predict_layers} extra block${config.num_nextn_predict_layers === 1 ? "" : "s"}, sharing embedding and head with the model. Beyond that the last one is fed its own state.`,
  ],
  stood: [
    "Guesses that stood",
    "sec. 5.4.3",
    "accepted with min(1, p / q)",
    "V3 reports 85 to 90 % for one guess a pass, and 1.8 times the speed.",
  ],
  perpass: [
    "Tokens per pass",
    "",
    "tokens / passes",
    "1 without guesses. On a GPU a pass over two tokens costs about as much as over one; here, on one core, it does not.",
  ],
  loss: ["Loss of the text", "", "mean of −ln p(token)", "In nats per token, over the text as it stands above."],
  choices: ["Choices that changed", "", "tokens × layers whose set of experts is another", ""],
};

const tip = document.getElementById("tip");
let told = null; // the number that is being explained

/** Markup of a number that explains itself. */
function num(key, text) {
  return `<span class="n" tabindex="0" data-x="${key}">${text}</span>`;
}

function escaped(text) {
  return String(text).replace(/[&<>"]/g, (ch) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[ch]);
}

function tell(target) {
  const entry = EXPLAINED[target.dataset.x];
  const own = target.dataset.say;
  if (!entry && !own) return;
  const [name, equation, formula, words] = entry ?? [own, "", "", ""];
  tip.innerHTML =
    `<strong>${name}</strong>${equation ? ` <span class="eq">${equation}</span>` : ""}` +
    (entry && own ? `<div class="own">${escaped(own)}</div>` : "") +
    (formula ? `<code>${formula}</code>` : "") +
    (words ? `<p>${words}</p>` : "");
  untell();
  told = target;
  tip.hidden = false;
  target.setAttribute("aria-describedby", "tip");
  place();
}

/** The words above their number, or below it where there is no room. */
function place() {
  const box = told.getBoundingClientRect();
  const width = tip.offsetWidth;
  const height = tip.offsetHeight;
  const gap = 8;
  const left = Math.min(Math.max(gap, box.left + box.width / 2 - width / 2), innerWidth - width - gap);
  const above = box.top - height - gap;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > gap ? above : Math.min(box.bottom + gap, innerHeight - height - gap)}px`;
}

function untell() {
  tip.hidden = true;
  told?.removeAttribute("aria-describedby");
  told = null;
}

const explains = (event) => event.target.closest?.("[data-x], [data-say]");
// Going to a number by the keyboard may scroll the page, under a pointer that rests: neither may take the words away.
const heldByFocus = () => told !== null && told === document.activeElement && told.matches(":focus-visible");
const leave = () => heldByFocus() || untell();
document.addEventListener("pointerover", (event) => (explains(event) ? tell(explains(event)) : leave()));
document.addEventListener(
  "focusin",
  (event) => explains(event) && event.target.matches(":focus-visible") && tell(explains(event)),
);
document.addEventListener("focusout", untell);
document.addEventListener("scroll", () => (heldByFocus() ? place() : untell()), { passive: true });
document.addEventListener("keydown", (event) => event.key === "Escape" && untell());
