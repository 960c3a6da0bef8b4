"""The key-value cache in elements and bytes."""

import pytest

from minids import ModelConfig
from minids.lab.analysis import kv_cache

V3, V2, LITE = (ModelConfig.preset(name) for name in ("deepseek-v3", "deepseek-v2", "deepseek-v2-lite"))


def test_v2_table_1_with_v3_sizes():
    assert kv_cache.by_kind(V3) == {"mha": 32_768, "gqa": 8 * 256, "mqa": 256, "mla": 576}
    assert kv_cache.full_elements(V3) == 40_960
    assert kv_cache.gqa_equivalent_groups(V3) == 2.25
    assert round(kv_cache.mha_over_mla(V3), 1) == 56.9


def test_bytes_of_one_token():
    assert kv_cache.bytes_per_token(V3) == 70_272
    assert kv_cache.bytes_per_token(V3, "fp32") == 140_544
    assert kv_cache.bytes_per_token(V3, "fp8") == 35_136
    assert kv_cache.bytes_per_token(V3, "6-bit") == 26_352
    assert kv_cache.flashmla_fp8_bytes(V3) == 656
    assert 61 * kv_cache.flashmla_fp8_bytes(V3) == 40_016


def test_v2_table_9():
    assert V2.num_hidden_layers * kv_cache.elements(V2) == 34_560
    assert LITE.num_hidden_layers * kv_cache.elements(LITE) == 15_552
    assert LITE.num_hidden_layers * kv_cache.mha_elements(LITE) == 110_592


def test_why_the_reduction_is_93_percent():
    by_elements, by_bits = kv_cache.reduction(34_560, 194_560, new_bits=6, old_bits=16)
    assert round(100 * by_elements, 1) == 82.2
    assert round(100 * by_bits, 2) == 93.34
    own_heads = kv_cache.reduction(kv_cache.mla_elements(V2), kv_cache.mha_elements(V2), 16, 16)
    assert round(100 * own_heads.by_elements, 2) == 98.24


def test_cache_scales_with_batch_and_context():
    assert kv_cache.cache_bytes(V3, context=4096, batch=3) == 3 * 4096 * 70_272
    assert kv_cache.bytes_of(3, "6-bit") == 2.25, "an odd number of 6-bit elements is no whole number of bytes"


@pytest.mark.parametrize(("kind", "heads"), [("mha", 4), ("gqa", 2), ("mqa", 1)])
def test_what_each_attention_caches(kind, heads):
    tiny = ModelConfig.preset("tiny").replace(attention=kind, num_key_value_heads=heads)
    assert kv_cache.elements(tiny) == heads * (48 + 32), "keys with their RoPE part, and values"
    if kind == "gqa":
        assert kv_cache.by_kind(tiny)["gqa"] == kv_cache.gqa_elements(tiny, 2) == 2 * (32 + 32)
