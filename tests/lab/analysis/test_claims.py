"""Every claim of the papers: its computed numbers, and the verdict on the printed ones."""

import pytest

from minids import MinidsError
from minids.lab.analysis.claim import agreement, format_claims
from minids.lab.analysis.claims import CLAIMS, claim_named

# name: (computed, relative tolerance, verdict). Tolerance 0 is exact; others are half the last digit given.
EXPECTED = {
    "v3_total": (671_026_419_200, 0, "rounded"),
    "v3_activated": ((36.626e9, 37.552e9), 2e-5, "cut"),
    "v3_activated_readme": (37.552e9, 2e-5, "differs"),
    "mtp_unique": (11_610_068_224, 0, "differs"),
    "mtp_activated_without_eh_proj": ((1.512e9, 2.439e9), 3e-4, "rounded"),
    "released_elements": (684_531_386_000, 0, "rounded"),
    "v2_totals": ((235_741_434_880, 15_706_484_224), 0, "rounded"),
    "v2_activated": ((21.376e9, 2.451e9), 2e-4, "cut"),
    "relatives_totals": ((15_960_110_208, 1_026_408_232_448), 0, "rounded"),
    "moonlight_without_embeddings": ((15.289e9, 2.244e9), 2e-4, "rounded"),
    "kv_a_scale_grid": ((5, 56), 0, "rounded"),
    "mla_cache": (576, 0, "rounded"),
    "v3_cache_bytes": (70_272, 0, "rounded"),
    "v2_cache": (34_560, 0, "rounded"),
    "small_moe_caches": ((15_552, 110_592), 0, "rounded"),
    "large_moe_mha_cache": (1_966_080, 0, "differs"),
    "gqa_groups": (2.25, 0, "rounded"),
    "mha_over_mla": (56.9, 1e-3, "not printed"),
    "naive_cache": ((40_960, 71.1), 1e-3, "not printed"),
    "v2_cache_reduction": (93.34, 5e-5, "rounded"),
    "v2_cache_reduction_by_elements": (82.2, 6e-4, "differs"),
    "gqa_cache_bytes": ((327_680, 516_096), 0, "rounded"),
    "qwen_multiplier": (4.663, 1e-4, "rounded"),
    "llama_multiplier": (7.344, 1e-4, "differs"),
    "flashmla_cache": (656, 0, "rounded"),
    "training_gflop": ((250.46, 155.31), 3e-5, "rounded"),
    "llama_training_gflop": (2473.2, 3e-5, "differs"),
    "qwen_training_gflop": (444.9, 1e-4, "differs"),
    "v3_tflops_per_gpu": ((386.1, 433.5), 2e-4, "within 0.5 %"),
    "tpot_infiniband": (14.757, 3e-5, "rounded"),
    "tokens_per_second_infiniband": (67.76, 1e-4, "cut"),
    "tpot_nvl72": (0.8198, 6e-5, "rounded"),
    "tokens_per_second_nvl72": (1219.8, 5e-5, "rounded"),
    "speculative_tokens_per_pass": ((1.85, 1.90), 1e-12, "differs"),
    "v3_bill": ((2_788_000, 5_576_000), 0, "rounded"),
    "days_per_trillion": (3.66, 1e-3, "rounded"),
    "pretraining_days": ((54.2, 54.25), 1e-4, "not printed"),
    "tokens_per_step": ((62_914_560, 62.91e6), 1e-4, "not printed"),
    "batch_ramp": ((3.169, 242_782), 1e-4, "not printed"),
    "recomputed_activations": (0.2224, 1e-4, "not printed"),
    "prefill_gpus": (32, 0, "rounded"),
    "decode_gpus": (64, 0, "rounded"),
    "learning_rate_phases": (14.8, 1e-12, "rounded"),
    "context_extension_tokens": ((62_914_560_000, 62_914_560_000), 0, "not printed"),
    "v31_context_extension": ((10.01, 3.32), 1e-3, "rounded"),
    "bubbles": ((45, 15, 14), 0, "not printed"),
    "mtp_loss_terms": (4095 / 4096, 0, "not printed"),
    "v2_training_saving": (42.51, 2e-4, "rounded"),
    "fp8_maxima": ((448, 65_024), 0, "rounded"),
    "v32_tokens": ((2.097e9, 943.7e9), 1e-4, "rounded"),
    "serving_margin": ((87_072, 545.5), 1e-4, "rounded"),
    "v3_softmax_scales": ((0.0721687836, 0.1352337788), 1e-9, "not printed"),
    "v3_yarn_cut_offs": ((10, 23), 0, "not printed"),
    "v2_lite_softmax_scale": (0.1147213868, 1e-9, "not printed"),
    "experts_per_node": (3.2, 0, "rounded"),
    "experts_at_no_extra_cost": (12.8, 0, "rounded"),
    "experts_per_group_score": (2, 0, "rounded"),
    "expert_combinations": ((120, 4_426_165_368), 0, "rounded"),
    "balance_loss_at_even_load": (1, 1e-12, "not printed"),
    "moonlight_gate_scaling": (2.446, 2e-4, "rounded"),
    "kimi_k2_gate_scaling": (2.828, 2e-4, "cut"),
    "v3_gate_scaling": (2.827, 2e-4, "differs"),
}


def test_the_table_above_is_complete():
    assert [c.name for c in CLAIMS] == list(EXPECTED), "every claim needs an expected value, in order"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.name)
def test_claim(claim):
    value, tolerance, verdict = EXPECTED[claim.name]
    expected = value if isinstance(value, tuple) else (value,)
    assert claim.computed() == pytest.approx(expected, rel=tolerance, abs=0), f"{claim.name} computes something else"
    assert claim.verdict() == verdict, f"{claim.name}: computed {claim.computed()}, printed {claim.printed}"
    assert claim.formula and claim.source
    digits = claim.digit if isinstance(claim.digit, tuple) else (claim.digit,) * len(claim.printed)
    for printed, digit in zip(claim.printed, digits, strict=True):
        assert not digit or abs(printed / digit - round(printed / digit)) < 1e-6, f"{printed} has other digits than {digit}"
    if verdict in ("differs", "within 0.5 %"):
        assert claim.words, "a disagreement needs a sentence"


@pytest.mark.parametrize(
    ("value", "printed", "digit", "verdict"),
    [
        (14.757, 14.76, 0.01, "rounded"),
        (67.76, 67, 1, "cut"),
        (12.3, 13, 1, "rounded up"),
        (386.1, 385, 1, "within 0.5 %"),
        (7.344, 7.28, 0.01, "differs"),
        (576, 576, 0, "rounded"),
        (577, 576, 0, "within 0.5 %"),
    ],
)
def test_verdicts(value, printed, digit, verdict):
    assert agreement(value, printed, digit) == verdict


def test_the_table_shows_all_claims_within_100_columns():
    text = format_claims(CLAIMS)
    assert all(len(line) < 100 for line in text.splitlines())
    assert all(claim.title[:80] in text for claim in CLAIMS)
    assert "671,026,419,200" in text and "7.3442623" in text


def test_claims_are_found_by_name():
    assert claim_named("gqa_groups").computed() == (2.25,)
    with pytest.raises(MinidsError, match="claim = 'nothing'"):
        claim_named("nothing")
