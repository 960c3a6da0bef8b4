"""FLOPs per token: published figures, and consistency with the list of steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minids import MinidsError, ModelConfig
from minids.config.presets import PRESETS
from minids.lab.analysis import flops, parameters
from minids.lab.analysis.steps import walk

V3, V2, TINY = ModelConfig.preset("deepseek-v3"), ModelConfig.preset("deepseek-v2"), ModelConfig.preset("tiny")
KINDS = [dict(attention="mla"), dict(attention="mha"), dict(attention="gqa", num_key_value_heads=2), dict(attention="mqa")]


def test_training_gflop_of_the_reports():
    assert round(flops.training(V3, 4096) / 1e9, 2) == 250.46
    assert round(flops.training(V2, 4096) / 1e9, 2) == 155.31
    assert round(flops.training(V3, 4096, causal=False) / 1e9, 2) == 281.16
    assert round(3 * flops.attention_forward(V3, 4096) / 1e9, 2) == 30.70
    assert round(3 * flops.attention_forward(V2, 4096) / 1e9, 2) == 30.20


def test_work_per_query_key_pair():
    assert flops.attention_per_pair(V3) == 81_920
    assert flops.absorbed_attention_per_pair(V3) == 278_528


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("time", [1, 2, 63, 64])
def test_closed_forms_equal_the_sum_over_all_steps(preset, time):
    """The steps count matrix products only, the 6 N rule also norm gains and routing biases: 6 each."""
    config, batch = ModelConfig.preset(preset), 2
    steps = walk(config, batch, time)
    counted = {False: 0, True: 0}
    for step in steps:
        counted[step.stage.startswith("MTP")] += step.layers * step.flops * (1 + step.backward_factor)
    vectors = {"MTP norms": 0}
    for part in parameters.parts(config):
        if part.name != "MTP block" and ("norm" in part.name or part.name == "routing bias"):
            vectors[part.name] = part.activated
    of_mtp = vectors.pop("MTP norms")
    assert counted[False] == batch * time * (flops.training(config, time) - 6 * sum(vectors.values()))
    if config.num_nextn_predict_layers:
        block = parameters.block_tensors(config, moe=True)
        of_mtp += sum(t.size for t in block if len(t.shape) == 1)
        expected = batch * (time * flops.mtp_training(config, time) - 6 * of_mtp * (time - 1))
        assert counted[True] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("changes", KINDS)
def test_decoding_one_by_one_equals_one_forward_pass(changes):
    """Summed over positions 1..T, cached decoding does what the causal forward pass does, with (T + 1)/2 keys for T/2."""
    config, time = ModelConfig.preset("tiny").replace(**changes), 32
    steps = sum(flops.decode(config, context, "full cache").flops for context in range(1, time + 1))
    extra = flops.attention_per_pair(config) * config.num_hidden_layers * time / 2
    assert steps == time * flops.forward(config, time) + extra


def test_absorbed_needs_the_least_cache_and_never_reexpands():
    absorbed, full, again, none = (flops.decode(V3, 4096, mode) for mode in flops.DECODE_MODES)
    assert absorbed.cache_elements == again.cache_elements == 4096 * 61 * 576
    assert full.cache_elements == 4096 * 61 * 40_960
    assert none.cache_elements == 0
    assert full.flops < absorbed.flops < again.flops < none.flops
    kv_b = 61 * 512 * 128 * 256
    assert again.flops - full.flops == 2 * kv_b * 4095


def test_absorption_pays_below_171_tokens():
    """At Q queries over C old keys the two ways cost the same where the formula says so."""
    queries = flops.absorption_pays_until(V3)
    assert round(queries, 1) == 170.7
    extra = flops.absorbed_attention_per_pair(V3) - flops.attention_per_pair(V3)
    assert queries * extra == pytest.approx(2 * 512 * 128 * 256)


def test_modes_that_do_not_exist_are_refused():
    with pytest.raises(MinidsError, match="mode = 'absorbed'"):
        flops.decode(ModelConfig.preset("tiny").replace(attention="mha"), 10, "absorbed")
    with pytest.raises(MinidsError, match="absorbed, full cache, re-expand, no cache"):
        flops.decode(V3, 10, "fast")


def test_attention_intensity():
    assert flops.attention_intensity(V3) == pytest.approx(278_528 / (576 * 2))
    mha = V3.replace(attention="mha", num_key_value_heads=None)
    assert flops.attention_intensity(mha) == 1, "2 FLOPs for each cached element of 2 bytes"


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(1, 5000))
def test_touched_experts_and_intensity_grow_with_the_batch(batch):
    small, large = flops.distinct_experts(V3, batch), flops.distinct_experts(V3, batch + 1)
    assert 8 <= small <= large <= 256
    one, more = flops.decode_intensity(V3, 1024, 1), flops.decode_intensity(V3, 1024, batch)
    assert more.cache_bytes == batch * one.cache_bytes == batch * 1024 * 70_272
    assert more.flops_per_byte >= one.flops_per_byte


def test_one_token_reads_its_own_experts_only():
    step = flops.decode_intensity(V3, 1, 1, weight_bits=8)
    assert step.weight_bytes == pytest.approx(parameters.activated(V3, "head"), rel=1e-12)


def test_one_token_reads_an_mtp_module_and_the_head():
    head = TINY.vocab_size * TINY.hidden_size
    assert flops.weights_read(TINY, mtp=True) == pytest.approx(parameters.mtp_activated(TINY) + head)
    deeper = TINY.replace(num_nextn_predict_layers=3)
    assert flops.weights_read(deeper, mtp=True) == flops.weights_read(TINY, mtp=True), "it is one module's"


def test_more_tokens_read_the_experts_that_a_draw_meets():
    """Counted, not computed: tokens that choose 4 of 16 at random, and how many different ones they met."""
    expert = 3 * TINY.moe_intermediate_size * TINY.hidden_size
    layers = TINY.num_hidden_layers - TINY.first_k_dense_replace
    rng = np.random.default_rng(0)
    for tokens in (2, 3, 8):
        met = [len({e for _ in range(tokens) for e in rng.choice(16, 4, replace=False)}) for _ in range(4000)]
        more = (np.mean(met) - 4) * expert
        assert flops.weights_read(TINY, tokens) - flops.weights_read(TINY) == pytest.approx(layers * more, rel=0.02)
        assert flops.weights_read(TINY, tokens, mtp=True) - flops.weights_read(TINY, mtp=True) == pytest.approx(more, rel=0.02)
    assert flops.weights_read(TINY, 10_000) < parameters.total(TINY)
