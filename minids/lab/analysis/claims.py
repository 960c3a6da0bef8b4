"""Every number of the DeepSeek papers that is arithmetic, computed from the configurations, in one table: ``CLAIMS``.

A row: name, title, what computes it, the formula, its source; then what is printed, the worth of the last printed digit, the
unit, and words on how far the two agree. "recalled", "second hand" and "UNVERIFIED" mark what was not read in the primary
source. "ISCA 2025" is "Insights into DeepSeek-V3" (arXiv 2505.09343), read as a transcript.
"""

import math

import numpy as np

from minids.config import ModelConfig, TrainConfig
from minids.errors import refuse
from minids.lab.analysis import (
    cost,
    flops,
    kv_cache,
    memory,
    models,
    network,
    parameters,
    pipeline,
    placement,
    released_weights,
)
from minids.lab.analysis.claim import Claim
from minids.layers.positions import softmax_scale
from minids.ops import balance_loss, yarn
from minids.training import batch_ramp
from minids.words import did_you_mean

V3, V2, V2_LITE = (ModelConfig.preset(name) for name in ("deepseek-v3", "deepseek-v2", "deepseek-v2-lite"))
MOONLIGHT, KIMI_K2 = ModelConfig.preset("moonlight-16b-a3b"), ModelConfig.preset("kimi-k2")
ABSTRACT, README = "DeepSeek-V3 report, abstract", "DeepSeek-V3 repository, README_WEIGHTS"
V2_TABLE_9, V2_ABSTRACT = "DeepSeek-V2 report, Table 9", "DeepSeek-V2 report, abstract and appendix B"
ISCA_1, ISCA_2, ISCA_DECODE = "ISCA 2025, Table 1", "ISCA 2025, Table 2", "ISCA 2025, section 2.3.2"
CODE = "DeepSeek-V3 repository, inference/model.py"
V3_RUN = TrainConfig(batch_size=15_360, context_length=4096, batch_ramp_until=469 / 14_800)
T_DAY = 272.80e9  # tokens a day of V3's pre-training (ISCA 2025, Table 4)
SERVING_DAY = 226.75 * 8 * 24 * cost.PRICE  # dollars a day of DeepSeek's own service: nodes, GPUs of a node, hours


def claim_named(name: str) -> Claim:
    """The claim of that name. Raises ``MinidsError`` where there is none."""
    for claim in CLAIMS:
        if claim.name == name:
            return claim
    names = [claim.name for claim in CLAIMS]
    raise refuse("claim", name, f"{did_you_mean(name, names)}must be one of {', '.join(names)}")


def _mtp_without_eh_proj() -> tuple[int, int]:
    """The MTP block with 8 experts and the head, and with both embeddings: what the READMEs count."""
    block = parameters.mtp_activated(V3) - 2 * V3.hidden_size**2 - 3 * V3.hidden_size
    vd = V3.vocab_size * V3.hidden_size
    return block + vd, block + 2 * vd


def _v2_cache_reduction() -> kv_cache.Reduction:
    return kv_cache.reduction(60 * kv_cache.mla_elements(V2), models.DEEPSEEK_67B.cache_elements, 6, 16)


def _v3_cut_offs() -> tuple[int, int]:
    s = V3.rope_scaling
    return yarn.cut_offs(V3.qk_rope_head_dim, V3.rope_theta, s.original_max_position_embeddings, s.beta_fast, s.beta_slow)


def _balance_loss_at_even_load() -> float:
    """From the operation that trains: equal scores, and tokens that take turns with V3's 256 experts."""
    experts, chosen = V3.n_routed_experts, V3.num_experts_per_tok
    turns = (np.arange(experts)[:, None] + np.arange(chosen)) % experts  # (N, K), every expert K times
    return balance_loss.forward(np.ones((experts, experts)), turns, experts)[0]


def _unit_output_scale(experts: int, chosen: int, draws: int = 20_000) -> float:
    """The expectation over ``draws`` tokens, seed fixed: its standard error is 5e-5."""
    rng = np.random.default_rng(0)
    best = np.empty((draws, chosen), dtype=np.float32)
    for start in range(0, draws, 1000):
        logits = rng.standard_normal((1000, experts), dtype=np.float32)
        best[start : start + 1000] = np.partition(logits, experts - chosen, axis=1)[:, experts - chosen :]
    scores = 1 / (1 + np.exp(-best))
    p = scores / scores.sum(axis=1, keepdims=True)
    return float(np.mean(1 / np.sqrt(np.sum(p * p, axis=1))))


# fmt: off
CLAIMS: tuple[Claim, ...] = (
    # Sizes: parameters, and the key-value cache.
    Claim("v3_total", "V3: parameters in all", lambda: parameters.total(V3),
          "2·V·d + d + Σ layers (MLA + norms + FFN or experts)", ABSTRACT, (671e9,), 1e9, "parameters",
          "671,026,419,200, of which 58 · 256 are routing biases"),
    Claim("v3_activated", "V3: parameters activated, with the head and with both embeddings",
          lambda: (parameters.activated(V3, "head"), parameters.activated(V3, "both")),
          "as the total with 8 of 256 experts a layer", ABSTRACT, (37e9, 37e9), 1e9, "parameters",
          "37B fits both conventions: 36.63B rounded, 37.55B cut"),
    Claim("v3_activated_readme", "V3: parameters activated, in the words of the README",
          lambda: parameters.activated(V3, "both"), "the same with both embeddings", README, (36.7e9,), 0.1e9, "parameters",
          "36.7B is said to include embedding and head, which makes 37.55B; the README on the model hub (second hand) says "
          "36.6B with the head only, and that fits"),
    Claim("mtp_unique", "V3: parameters only the MTP module has", lambda: parameters.mtp_total(V3),
          "block + eh_proj 2·d² + 3 norms of d", README, (11.5e9,), 0.1e9, "parameters",
          "11.610B; the README's 11.5B is the block alone (11.507B) and leaves eh_proj (0.103B) out"),
    Claim("mtp_activated_without_eh_proj", "V3: MTP activated with head / with both", _mtp_without_eh_proj,
          "block with 8 experts (+ V·d, + 2·V·d), eh_proj left out",
          "DeepSeek-V3 repository README (2.4B) and the README on the model hub (1.5B, second hand)",
          (1.5e9, 2.4e9), 0.1e9, "parameters", "both leave eh_proj out; with it they would be 1.615B and 2.541B"),
    Claim("released_elements", "V3: elements of the released files", lambda: released_weights.census(V3).total,
          "main + MTP + 2 copies of V·d + one scale per 128 × 128 block", "model hub metadata (second hand)",
          (684_531_386_000,), unit="elements", words="equal to the last element, which proves the type of every tensor"),
    Claim("v2_totals", "V2 / V2-Lite: parameters in all", lambda: (parameters.total(V2), parameters.total(V2_LITE)),
          "as for V3, no routing bias", V2_ABSTRACT, (236e9, 15.7e9), (1e9, 0.1e9), "parameters",
          "235,741,434,880 and 15,706,484,224"),
    Claim("v2_activated", "V2 / V2-Lite: parameters activated",
          lambda: (parameters.activated(V2, "both"), parameters.activated(V2_LITE, "head")),
          "as for V3; V2 with both embeddings, V2-Lite with the head only", V2_ABSTRACT,
          (21e9, 2.4e9), (1e9, 0.1e9), "parameters",
          "by different conventions: V2's number fits with both embeddings, V2-Lite's with the head only (both make 2.66B)"),
    Claim("relatives_totals", "Moonlight / Kimi-K2: parameters in all",
          lambda: (parameters.total(MOONLIGHT), parameters.total(KIMI_K2)),
          "as for V3", "Moonlight report; Kimi-K2 README", (16e9, 1e12), (1e9, 1e12), "parameters",
          "1.026T is printed as 1T; a public count of K2 is 3,416 = 61 · 56 higher for an unknown reason (UNVERIFIED)"),
    Claim("moonlight_without_embeddings", "Moonlight: parameters in all and activated, without embeddings",
          lambda: (parameters.total(MOONLIGHT) - 2 * MOONLIGHT.vocab_size * MOONLIGHT.hidden_size,
                   parameters.activated(MOONLIGHT, "neither")),
          "as for V3, minus 2·V·d", "Moonlight report, Table 1", (15.29e9, 2.24e9), 0.01e9, "parameters"),
    Claim("kv_a_scale_grid", "V3: scales of kv_a_proj_with_mqa", lambda: released_weights.scale_shape((576, 7168)),
          "ceil(576/128) × ceil(7168/128)", README, (5, 56)),
    Claim("mla_cache", "MLA: cache per token and layer", lambda: kv_cache.mla_elements(V3),
          "d_c + d_r = 512 + 64", "DeepSeek-V2 report, Table 1", (576,), unit="elements"),
    Claim("v3_cache_bytes", "V3: cache per token, BF16", lambda: kv_cache.bytes_per_token(V3),
          "61 · 576 · 2", ISCA_1, (70_272,), unit="bytes"),
    Claim("v2_cache", "V2: cache per token", lambda: V2.num_hidden_layers * kv_cache.mla_elements(V2),
          "60 · 576", V2_TABLE_9, (34_600,), 100, "elements"),
    Claim("small_moe_caches", "V2's small MoE: MLA / MHA cache per token",
          lambda: (27 * kv_cache.mla_elements(V2_LITE), 27 * kv_cache.mha_elements(V2_LITE)),
          "27 · 576; 2 · 16 · 128 · 27", V2_TABLE_9, (15_600, 110_600), 100, "elements"),
    Claim("large_moe_mha_cache", "V2's large MoE: MHA cache per token", lambda: 60 * kv_cache.mha_elements(V2),
          "2 · 128 · 128 · 60 with V2's heads", V2_TABLE_9, (860_200,), 100, "elements",
          "V2's 128 heads would give 1,966,080; 860.2K is 2 · 56 · 128 · 60, a baseline with n_h·d_h = 7168"),
    Claim("gqa_groups", "MLA as GQA groups", lambda: kv_cache.gqa_equivalent_groups(V3),
          "576 / (2 · 128)", "DeepSeek-V2 report, section 2.1.4", (2.25,), unit="groups"),
    Claim("mha_over_mla", "MLA against MHA of its own heads", lambda: kv_cache.mha_over_mla(V3),
          "32,768 / 576", "computed only", unit="times", words="32,768 elements against 576"),
    Claim("naive_cache", "Demo code's naive cache per layer / over latent",
          lambda: (kv_cache.full_elements(V3), kv_cache.full_elements(V3) / kv_cache.mla_elements(V3)),
          "128 · (192 + 128); divided by 576", CODE, unit="elements", words="the buffers the code allocates"),
    Claim("v2_cache_reduction", "V2's cache reduction against DeepSeek 67B", lambda: 100 * _v2_cache_reduction().by_bits,
          "1 − 34,560 · 6 / (194,560 · 16)",
          "DeepSeek-V2 report, abstract and section 3.2.3; sizes of DeepSeek 67B recalled", (93.3,), 0.1, "%",
          "only because V2's cache is quantised to 6 bits: by elements it is 82.2 %; against MHA with V2's heads 98.24 %"),
    Claim("v2_cache_reduction_by_elements", "The same by elements alone", lambda: 100 * _v2_cache_reduction().by_elements,
          "1 − 34,560 / 194,560", "DeepSeek-V2 report, abstract; sizes of DeepSeek 67B recalled", (93.3,), 0.1, "%",
          "architecture alone saves 82.2 %; the rest of the 93.3 % is the 6-bit cache"),
    Claim("gqa_cache_bytes", "Qwen2.5-72B / Llama-3.1-405B: cache per token, BF16",
          lambda: (2 * models.QWEN_72B.cache_elements, 2 * models.LLAMA_405B.cache_elements),
          "2 · 8 · 128 · L · 2, L = 80 and 126", ISCA_1, (327_680, 516_096), unit="bytes"),
    Claim("qwen_multiplier", "Qwen2.5-72B's cache over V3's",
          lambda: 2 * models.QWEN_72B.cache_elements / kv_cache.bytes_per_token(V3),
          "327,680 / 70,272", ISCA_1, (4.66,), 0.01, "times"),
    Claim("llama_multiplier", "Llama-3.1-405B's cache over V3's",
          lambda: 2 * models.LLAMA_405B.cache_elements / kv_cache.bytes_per_token(V3),
          "516,096 / 70,272", ISCA_1, (7.28,), 0.01, "times",
          "7.344: the printed 7.28 does not follow from the bytes in the same table"),
    Claim("flashmla_cache", "FlashMLA's FP8 cache per token and layer", lambda: kv_cache.flashmla_fp8_bytes(V3),
          "512 + 4 · 4 + 64 · 2", "FlashMLA repository, README", (656,), unit="bytes",
          words="V3's 61 layers make 40,016 bytes a token"),

    # Work, time and money.
    Claim("training_gflop", "Training FLOPs per token, V3 / V2",
          lambda: (flops.training(V3, 4096) / 1e9, flops.training(V2, 4096) / 1e9),
          "6·N + 3·2·n_h(d_qk + d_v)·(4096/2)·L, N with head and without embedding", ISCA_2, (250, 155), 1, "GFLOP",
          "250.46 and 155.31"),
    Claim("llama_training_gflop", "Training FLOPs per token, Llama-3.1-405B",
          lambda: models.LLAMA_405B.training_flops(4096) / 1e9,
          "the same formula, n_h = 128, d_h = 128, L = 126", ISCA_2, (2448,), 1, "GFLOP",
          "2473, 1 % more; 2448 would be 6 · 408B"),
    Claim("qwen_training_gflop", "Training FLOPs per token, Qwen 72B", lambda: models.QWEN_72B.training_flops(4096) / 1e9,
          "the same formula, n_h = 64, d_h = 128, L = 80 (sizes of Qwen2.5-72B)", ISCA_2, (394,), 1, "GFLOP",
          "445; the printed 394 = 6 · 65.7B cannot be rebuilt from any reading of the sizes"),
    Claim("v3_tflops_per_gpu", "V3: training TFLOP/s per GPU, causal / not",
          lambda: tuple(flops.training(V3, 4096, causal) * (T_DAY / 86_400 / cost.V3_GPUS) / 1e12 for causal in (True, False)),
          "FLOPs per token · 272.80B tokens a day / 86,400 s / 2048", "ISCA 2025, Table 4", (385, 432), 1, "TFLOP/s",
          "two columns of one table: the token rate and the FLOP rate differ by 0.3 %"),
    Claim("tpot_infiniband", "Shortest time per token on InfiniBand",
          lambda: 1e3 * network.decode_limit(network.INFINIBAND).tpot,
          "2 · 3 · 32 · 9 · 7000 / 50e9 · 61", ISCA_DECODE, (14.76,), 0.01, "ms",
          "with the paper's 7000 for the hidden size; V3's 7168 make 15.11 ms"),
    Claim("tokens_per_second_infiniband", "Tokens per second on InfiniBand",
          lambda: network.decode_limit(network.INFINIBAND).tokens_per_second,
          "1 / 14.757 ms", ISCA_DECODE, (67,), 1, "tokens/s"),
    Claim("tpot_nvl72", "Shortest time per token on GB200 NVL72", lambda: 1e3 * network.decode_limit(network.NVL72).tpot,
          "2 · 3 · 32 · 9 · 7000 / 900e9 · 61", ISCA_DECODE, (0.82,), 0.01, "ms"),
    Claim("tokens_per_second_nvl72", "Tokens per second on GB200 NVL72",
          lambda: network.decode_limit(network.NVL72).tokens_per_second,
          "1 / 0.8198 ms", ISCA_DECODE, (1200,), 100, "tokens/s", "printed as about 1200"),
    Claim("speculative_tokens_per_pass", "Tokens per pass with one draft token", lambda: (1 + 0.85, 1 + 0.90),
          "1 + p, p = 0.85 to 0.90", "DeepSeek-V3 report, section 5.4.3", (1.8, 1.8), 0.1, "tokens",
          "1.8 is the speed, 1.85 to 1.90 the tokens a pass: 3 to 6 % go into drafting. The ISCA paper says p = 0.80 to 0.90"),
    Claim("v3_bill", "V3: GPU hours / dollars", lambda: (cost.v3_gpu_hours(), cost.v3_dollars()),
          "2664K + 119K + 5K; · 2 $", "DeepSeek-V3 report, Table 1", (2_788_000, 5_576_000), unit="H800 hours, dollars"),
    Claim("days_per_trillion", "V3: days per trillion tokens", lambda: 180_000 / cost.V3_GPUS / 24,
          "180K / (2048 · 24)", "DeepSeek-V3 report, section 1", (3.7,), 0.1, "days"),
    Claim("pretraining_days", "V3: pre-training days by bill / by token rate",
          lambda: (2_664_000 / cost.V3_GPUS / 24, cost.V3_TOKENS / T_DAY), "2664K / (2048 · 24); 14.8T / 272.8B a day",
          "DeepSeek-V3 report, Table 1; ISCA 2025, Table 4", unit="days",
          words="the two papers are consistent with each other"),
    Claim("tokens_per_step", "V3: tokens per step", lambda: (15_360 * 4096, T_DAY / 86_400 * 19.926),
          "15360 · 4096; 272.80B a day · 19.926 s", "DeepSeek-V3 report, section 4.2; ISCA 2025, Table 4", unit="tokens",
          words="the two papers are consistent with each other"),
    Claim("batch_ramp", "V3: its batch ramp, share of the tokens / steps of the run",
          lambda: (100 * 469 / 14_800, batch_ramp.steps_for(round(14.8e12), V3_RUN)),
          "469B / 14.8T; 14.8T / (15360 · 4096) · (1 − u + u ln 5 / 0.8), u = 469/14,800",
          "DeepSeek-V3 report, section 4.2", unit="%, steps",
          words="the report gives sequences and tokens, no steps; with a constant batch they would be 235,240"),
    Claim("recomputed_activations", "V3: activations kept with recomputation over all of them, 4096 tokens",
          lambda: memory.activation_elements(V3, 1, 4096, "recompute") / memory.activation_elements(V3, 1, 4096),
          "Σ over named arrays: norms, MLA's up-projections, attention weights and the SwiGLU product left out",
          "DeepSeek-V3 report, section 3.2.3", words="the report gives no number"),
    Claim("prefill_gpus", "V3: redundant experts to prefill", lambda: 32 * 9 - V3.n_routed_experts,
          "32 GPUs · (8 + 1) − 256", "DeepSeek-V3 report, section 3.4.1", (32,), unit="experts"),
    Claim("decode_gpus", "V3: GPUs for redundant and shared experts to decode",
          lambda: int(placement.v3_decoding().copies[256]) + 32,
          "256 / 8 copies of the shared expert, which every token has, + 32 redundant experts",
          "DeepSeek-V3 report, section 3.4.2", (64,), unit="GPUs",
          words="at even routing a copy of the shared expert then has as much to do as a routed expert"),
    Claim("learning_rate_phases", "V3: tokens of the learning-rate phases", lambda: 10 + 4.3 + 0.333 + 0.167,
          "10 + 4.3 + 0.333 + 0.167", "DeepSeek-V3 report, section 4.2", (14.8,), 0.1, "trillion tokens"),
    Claim("context_extension_tokens", "V3: tokens of the two stages of context extension",
          lambda: (1000 * 1920 * 32_768, 1000 * 480 * 131_072),
          "1000 · 1920 · 32768; 1000 · 480 · 131072", "DeepSeek-V3 report, section 4.3", unit="tokens",
          words="the report gives steps, batches and lengths; both stages see equally many tokens"),
    Claim("v31_context_extension", "V3.1: its context extension over V3's",
          lambda: (630e9 / (1000 * 1920 * 32_768), 209e9 / (1000 * 480 * 131_072)),
          "630B and 209B over 62.9B", "V3.1 model card (second hand)", (10, 3.3), 0.1, "times"),
    Claim("bubbles", "Bubble at PP = 16: 1F1B / ZB1P / DualPipe",
          lambda: tuple(pipeline.simulate(name, 16, 32).bubble for name in ("1F1B", "ZB1P", "DualPipe")),
          "V3's Table 2 with F = W = 1, B = 2, F&B = 3, by simulation", "DeepSeek-V3 report, Table 2", unit="units",
          words="the table prints formulas; simulation and formulas give the same 45, 15, 14"),
    Claim("mtp_loss_terms", "MTP loss: terms over divisor, k = 1, T = 4096", lambda: 4095 / 4096,
          "(T − k) / T", "DeepSeek-V3 report, eq. 24",
          words="the sum of eq. 24 has T − k terms and divides by T: 0.02 % less than a mean"),
    Claim("v2_training_saving", "V2: GPU hours saved against DeepSeek 67B", lambda: 100 * (1 - 172_800 / 300_600),
          "1 − 172.8K/300.6K", "DeepSeek-V2 report, section 3.2.3", (42.5,), 0.1, "%"),
    Claim("fp8_maxima", "Largest finite E4M3 / E5M6", lambda: (1.75 * 2**8, (2 - 2**-6) * 2**15),  # 1.111 · 2⁸ stands for NaN
          "1.75 · 2⁸; (2 − 2⁻⁶) · 2¹⁵", "DeepSeek-V3 repository, kernel.py; TileKernels, cast_e5m6.py", (448, 65_024)),
    Claim("v32_tokens", "V3.2: tokens of warm-up / sparse stage", lambda: (1000 * 16 * 131_072, 15_000 * 480 * 131_072),
          "1000 · 16 · 131072; 15000 · 480 · 131072", "DeepSeek-V3.2-Exp report", (2.1e9, 943.7e9), 0.1e9, "tokens"),
    Claim("serving_margin", "DeepSeek's service: cost per day / margin",
          lambda: (SERVING_DAY, 100 * (562_027 / SERVING_DAY - 1)),
          "226.75 · 8 · 24 · 2 $; 562,027 / cost − 1", "open-infra-index repository, day 6", (87_072, 545), 1, "dollars, %",
          "the income is theoretical, every token at list price"),

    # Design: positions, routing, number formats.
    Claim("v3_softmax_scales", "Softmax scale of V3 without / with YaRN",
          lambda: (softmax_scale(V3.replace(rope_scaling=None)), softmax_scale(V3)),
          "192^-1/2; times (0.1 ln 40 + 1)²", CODE, words="a constant of the code"),
    Claim("v3_yarn_cut_offs", "YaRN's cut-offs for V3", _v3_cut_offs,
          "floor and ceil of 64·ln(4096/2πr)/(2 ln 10000), r = 32 and 1", f"{CODE}; transformers, modeling_rope_utils",
          words="constants of the code"),
    Claim("v2_lite_softmax_scale", "Softmax scale of V2-Lite", lambda: softmax_scale(V2_LITE),
          "192^-1/2 · (0.1 · 0.707 · ln 40 + 1)²", "config.json of V2-Lite (mscale 0.707)",
          words="a constant; for the 236B model copies of the config say 0.707 or 1.0 (UNVERIFIED)"),
    Claim("experts_per_node", "Experts per node at no extra cost", network.experts_per_node,
          "NVLink over InfiniBand, 160/50", "DeepSeek-V3 report, section 3.2.2", (3.2,), 0.1, "experts",
          "the ISCA paper counts a bandwidth ratio of 4 instead: 200 to 50 nominal, 160 to 40 effective"),
    Claim("experts_at_no_extra_cost", "Experts per token at the communication cost of 8", network.experts_at_no_extra_cost,
          "4 nodes · 3.2", "DeepSeek-V3 report, section 3.2.2", (13,), 1, "experts", "12.8, printed as up to 13"),
    Claim("experts_per_group_score", "Experts that score a group", lambda: V3.num_experts_per_tok // V3.topk_group,
          "K / M = 8 / 4", "DeepSeek-V3 report, section 2.1.2; repository, inference/model.py", (2,)),
    Claim("expert_combinations", "Ways to choose experts, 2 of 16 / 8 of 64", lambda: (math.comb(16, 2), math.comb(64, 8)),
          "C(16, 2); C(64, 8)", "DeepSeekMoE paper, section 3.1", (120, 4_426_165_368)),
    Claim("balance_loss_at_even_load", "Balance loss at even load, over α", _balance_loss_at_even_load,
          "Σ f_i P_i with f_i = 1 and P_i = 1/E", "DeepSeek-V3 report, eqs 17-20",
          words="follows from the equations: perfect balance costs α, not 0"),
    Claim("moonlight_gate_scaling", "Moonlight: gate scaling that gives experts a dense network's output size, 6 of 64",
          lambda: _unit_output_scale(64, 6), "E[1 / sqrt(Σ p²)], p = renormalised top-K sigmoids of normal logits",
          "Moonlight report, appendix C", (2.446,), 0.001),
    Claim("kimi_k2_gate_scaling", "Kimi-K2: the same, 8 of 384", lambda: _unit_output_scale(384, 8),
          "as above", "config.json of Kimi-K2, routed_scaling_factor", (2.827,), 0.001,
          words="2.8276 by sampling: K2's value is this one, or that of 8 of 256 experts, 2.8273"),
    Claim("v3_gate_scaling", "V3: the same, 8 of 256", lambda: _unit_output_scale(256, 8),
          "as above", "config.json of DeepSeek-V3, routed_scaling_factor", (2.5,), 0.1,
          words="V3 does not follow the rule: its factor is smaller than the 2.827 the rule gives, and its paper does not "
          "mention it"),
)
# fmt: on
