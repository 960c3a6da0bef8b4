"""Configurations: what they follow from, which are made, and that everything else is refused in one clear line."""

import dataclasses
import tracemalloc
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minids.config import ModelConfig, TrainConfig, Yarn
from minids.config.presets import PRESETS, TRAINABLE
from minids.errors import MinidsError
from minids.lab.analysis.parameters import activated

TINY = ModelConfig.preset("tiny")


def refused(make, *words):
    """``make()`` must raise a MinidsError of one line that holds every one of ``words``."""
    with pytest.raises(MinidsError) as caught:
        make()
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert str(word) in line, f"{word!r} is missing in: {line}"


# Each of these cannot work: the change, the words its line must hold (field, value, what would do).
MODEL_REFUSALS = [
    (dict(vocab_size=0), ["vocab_size = 0", "at least 1"]),
    (dict(hidden_size=-3), ["hidden_size = -3"]),
    (dict(hidden_size=2.5), ["hidden_size = 2.5", "whole number"]),
    (dict(num_hidden_layers=True), ["num_hidden_layers = True", "whole number"]),
    (dict(num_hidden_layers=10**9), ["num_hidden_layers = 1000000000", "at most 10,000"]),
    (dict(num_nextn_predict_layers=10**30), ["num_nextn_predict_layers = 1", "at most 10,000"]),
    (dict(moe_intermediate_size="64"), ["moe_intermediate_size = '64'"]),
    (dict(q_lora_rank=0), ["q_lora_rank = 0", "at least 1"]),
    (dict(kv_lora_rank=None), ["kv_lora_rank = None"]),
    (dict(qk_nope_head_dim=-1), ["qk_nope_head_dim = -1", "at least 0"]),
    (dict(qk_rope_head_dim=15), ["qk_rope_head_dim = 15", "even"]),
    (dict(n_shared_experts=-1), ["n_shared_experts = -1"]),
    (dict(num_nextn_predict_layers=-1), ["num_nextn_predict_layers = -1"]),
    (dict(first_k_dense_replace=6), ["first_k_dense_replace = 6", "num_hidden_layers = 5"]),
    (dict(n_group=3), ["n_group = 3", "n_routed_experts = 16", "1, 2, 4, 8, 16"]),
    (dict(n_group=10**6 + 1, n_routed_experts=10**40), ["n_group = 1000001", "1, 2, 4"]),
    (dict(topk_group=5), ["topk_group = 5", "n_group = 4"]),
    (dict(topk_group=0), ["topk_group = 0"]),
    (dict(num_experts_per_tok=9), ["num_experts_per_tok = 9", "2 kept groups of 4", "hold only 8"]),
    (dict(num_experts_per_tok=0), ["num_experts_per_tok = 0"]),
    (dict(n_group=16, num_experts_per_tok=2), ["n_group = 16", "two best"]),
    (dict(topk_method="greedy", balance="none"), ["n_group = 4", "greedy"]),
    (dict(topk_method="group_limited_greedy"), ["balance = 'bias'", "noaux_tc", "aux_loss"]),
    (dict(scoring_func="relu"), ["scoring_func = 'relu'", "sigmoid, softmax"]),
    (dict(topk_method=None), ["topk_method = None", "noaux_tc"]),
    (dict(attention="flash"), ["attention = 'flash'", "mla, mha, gqa, mqa"]),
    (dict(balance="loss"), ["balance = 'loss'"]),
    (dict(bias_update_rule="step"), ["bias_update_rule = 'step'", "sign, proportional"]),
    (dict(aux_loss_counts="all"), ["aux_loss_counts = 'all'"]),
    (dict(attention="gqa"), ["num_key_value_heads = None", "divisor of num_attention_heads = 4"]),
    (dict(attention="gqa", num_key_value_heads=3), ["num_key_value_heads = 3"]),
    (dict(attention="mqa", num_key_value_heads=2), ["num_key_value_heads = 2", "mqa"]),
    (dict(attention="mha", num_key_value_heads=2), ["num_key_value_heads = 2", "mha"]),
    (dict(num_key_value_heads=2), ["num_key_value_heads = 2", "mla"]),
    (dict(norm_topk_prob=1), ["norm_topk_prob = 1", "true or false"]),
    (dict(rope_interleave=None), ["rope_interleave = None"]),
    (dict(rope_scaling={"factor": 40}), ["rope_scaling", "Yarn"]),
    (dict(rope_theta=1.0), ["rope_theta = 1.0", "above 1"]),
    (dict(rope_theta=float("nan")), ["rope_theta = nan", "finite"]),
    (dict(rms_norm_eps=0.0), ["rms_norm_eps = 0.0", "above 0"]),
    (dict(routed_scaling_factor=float("inf")), ["routed_scaling_factor = inf", "finite"]),
    (dict(routed_scaling_factor=10**400), ["routed_scaling_factor", "finite"]),
    (dict(initializer_range=-0.1), ["initializer_range = -0.1", "at least 0"]),
    (dict(aux_loss_alpha="small"), ["aux_loss_alpha = 'small'", "finite"]),
    (dict(mtp_loss_weight=-1), ["mtp_loss_weight = -1"]),
    (dict(bias_update_speed=-0.001), ["bias_update_speed = -0.001"]),
    (dict(bos_token_id=258), ["bos_token_id = 258", "vocab_size = 258"]),
    (dict(eos_token_id=-1), ["eos_token_id = -1"]),
    (dict(precision="fp16"), ["precision = 'fp16'", "fp32, bf16, fp8"]),
    (dict(fp8_scaling="row"), ["fp8_scaling = 'row'", "tile, tensor, delayed"]),
    (dict(fp8_tile=0), ["fp8_tile = 0", "at least 1"]),
    (dict(fp8_promotion=1), ["fp8_promotion = 1", "true or false"]),
    (dict(hiden_size=4), ["hiden_size = 4", "did you mean hidden_size"]),
]


@pytest.mark.parametrize(("changes", "words"), MODEL_REFUSALS, ids=lambda x: " ".join(map(str, x))[:60])
def test_a_model_that_cannot_work_is_refused(changes, words):
    refused(lambda: TINY.replace(**changes), *words)


YARN_REFUSALS = [
    (dict(factor=0.5), ["rope_scaling.factor = 0.5", "at least 1"]),
    (dict(factor=0), ["rope_scaling.factor = 0"]),
    (dict(factor="40"), ["rope_scaling.factor = '40'"]),
    (dict(original_max_position_embeddings=0), ["rope_scaling.original_max_position_embeddings = 0"]),
    (dict(original_max_position_embeddings=4096.0), ["rope_scaling.original_max_position_embeddings"]),
    (dict(beta_fast=0.5), ["rope_scaling.beta_fast = 0.5", "beta_slow = 1"]),
    (dict(beta_slow=-1.0), ["rope_scaling.beta_slow = -1.0"]),
    (dict(mscale=float("nan")), ["rope_scaling.mscale = nan"]),
    (dict(mscale_all_dim=-0.1), ["rope_scaling.mscale_all_dim = -0.1"]),
]


@pytest.mark.parametrize(("changes", "words"), YARN_REFUSALS, ids=lambda x: " ".join(map(str, x))[:60])
def test_a_yarn_that_cannot_work_is_refused(changes, words):
    refused(lambda: Yarn(**changes), *words)


TRAIN_REFUSALS = [
    (dict(moments="bf16", optimizer="muon"), ["moments = 'bf16'", "fp32", "adamw"]),
    (dict(moments="fp16"), ["moments = 'fp16'", "fp32, bf16"]),
    (dict(steps=0), ["steps = 0", "at least 1"]),
    (dict(batch_size=1.0), ["batch_size = 1.0"]),
    (dict(context_length=-1), ["context_length = -1"]),
    (dict(warmup_steps=-1), ["warmup_steps = -1"]),
    (dict(seed=-1), ["seed = -1"]),
    (dict(bpe_vocab_size=299), ["bpe_vocab_size = 299", "at least 300"]),
    (dict(learning_rate=0), ["learning_rate = 0", "above 0"]),
    (dict(learning_rate=float("inf")), ["learning_rate = inf"]),
    (dict(weight_decay=-0.1), ["weight_decay = -0.1"]),
    (dict(clip_norm=None), ["clip_norm = None"]),
    (dict(beta1=1.0), ["beta1 = 1.0", "between 0 and 1"]),
    (dict(beta2=1.5), ["beta2 = 1.5"]),
    (dict(validation_share=1), ["validation_share = 1"]),
    (dict(constant_until=0.99), ["decay_until"]),
    (dict(final_from=1.01), ["final_from = 1.01"]),
    (dict(tokenizer="words"), ["tokenizer = 'words'", "bytes, bpe"]),
    (dict(step=3), ["step = 3", "did you mean steps"]),
]


@pytest.mark.parametrize(("changes", "words"), TRAIN_REFUSALS, ids=lambda x: " ".join(map(str, x))[:60])
def test_a_run_that_cannot_work_is_refused(changes, words):
    refused(lambda: TrainConfig().replace(**changes), *words)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**63, float("nan"), float("inf"), -float("inf"), -0.0, 5e-324, 1.8e308]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["mla", "mha", "gqa", "mqa", "bias", "none", "aux_loss", "softmax", "greedy", "noaux_tc", "group_limited_greedy"]
    ),
    st.sampled_from([b"x", (), [], {}, [1], {"factor": 2}, object, 1j, Yarn()]),
)


def only_minids_errors(base, changes):
    try:
        made = base.replace(**changes)
    except MinidsError as error:
        line = str(error)
        assert "\n" not in line and " = " in line and ": " in line, f"not of the form field = value: reason: {line}"
        return
    assert made.replace() == made, "what was accepted once must be accepted again"


@pytest.mark.parametrize("base", [TINY, TrainConfig()], ids=["model", "run"])
def test_whatever_is_put_in_only_a_minids_error_comes_out(base):
    names = st.sampled_from([field.name for field in dataclasses.fields(base)])

    @settings(max_examples=400)
    @given(st.dictionaries(names, ANYTHING, min_size=1, max_size=4))
    def run(changes):
        only_minids_errors(base, changes)

    run()


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Yarn)]), ANYTHING, min_size=1, max_size=3))
def test_whatever_is_put_into_yarn_only_a_minids_error_comes_out(changes):
    try:
        Yarn(**changes)
    except MinidsError as error:
        assert str(error).startswith("rope_scaling.") and "\n" not in str(error)


@settings(max_examples=300)
@given(
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 12),
    st.sampled_from(["noaux_tc", "group_limited_greedy"]),
)
def test_expert_sizes_are_accepted_exactly_when_the_router_can_choose(experts, groups, kept, top_k, method):
    def make():
        return TINY.replace(
            n_routed_experts=experts,
            n_group=groups,
            topk_group=kept,
            num_experts_per_tok=top_k,
            topk_method=method,
            balance="none",
        )

    held = experts % groups == 0 and kept <= groups and top_k <= kept * (experts // groups)
    if held and (method != "noaux_tc" or experts // groups >= 2):
        assert make().n_routed_experts == experts
    else:
        with pytest.raises(MinidsError):
            make()


# Presets.


def test_every_preset_is_made_at_once_and_without_a_weight():
    ModelConfig.preset("tiny")  # imports the table
    tracemalloc.start()
    for name in PRESETS:
        config = ModelConfig.preset(name)
        assert config.vocab_size > 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000, f"making all presets took {peak} bytes; a configuration allocates no weights"


def test_the_presets_that_were_promised_exist():
    promised = {"tiny", "small", "laptop", "deepseek-v2-lite", "deepseek-v2", "deepseek-v3", "moonlight-16b-a3b", "kimi-k2"}
    assert promised <= set(PRESETS)
    assert set(TRAINABLE) == {"tiny", "small", "laptop", "shakespeare"}
    for name in TRAINABLE:
        run, model = TrainConfig.preset(name), ModelConfig.preset(name)
        assert run.context_length <= model.max_position_embeddings


def test_the_shakespeare_run_sees_the_characters_of_nanogpts_recipe_with_a_model_of_its_size():
    run, model = TrainConfig.preset("shakespeare"), ModelConfig.preset("shakespeare")
    assert run.steps * run.tokens_per_step == 2000 * 12 * 64 and run.context_length == 64
    assert activated(model, "both") <= 1_000_000


def test_deepseek_v3_has_the_sizes_of_the_paper():
    """DeepSeek-V3 report, section 4.2."""
    c = ModelConfig.preset("deepseek-v3")
    assert (c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.qk_nope_head_dim, c.v_head_dim) == (
        61,
        7168,
        128,
        128,
        128,
    )
    assert (c.kv_lora_rank, c.q_lora_rank, c.qk_rope_head_dim) == (512, 1536, 64)
    assert (c.first_k_dense_replace, c.n_shared_experts, c.n_routed_experts, c.moe_intermediate_size) == (3, 1, 256, 2048)
    assert (c.num_experts_per_tok, c.n_group, c.topk_group, c.num_nextn_predict_layers) == (8, 8, 4, 1)
    assert (c.bias_update_speed, c.aux_loss_alpha, c.mtp_loss_weight, c.initializer_range) == (0.001, 0.0001, 0.3, 0.006)
    assert c.rope_scaling == Yarn(40.0, 4096, 32.0, 1.0, 1.0, 1.0)


def test_an_unknown_preset_names_the_nearest_and_all():
    refused(lambda: ModelConfig.preset("deepseek-v4"), "preset = 'deepseek-v4'", "did you mean deepseek-v", "kimi-k2")
    refused(lambda: ModelConfig.preset(""), "preset = ''", "tiny")
    refused(lambda: ModelConfig.preset(None), "preset = None")
    refused(lambda: TrainConfig.preset("deepseek-v3"), "deepseek-v3", "tiny, small, laptop")
    refused(lambda: ModelConfig.preset("tiny", hidden=3), "hidden = 3")


def test_changes_to_a_preset_are_applied_and_checked():
    assert ModelConfig.preset("tiny", hidden_size=64).hidden_size == 64
    assert ModelConfig.preset("tiny").hidden_size == 128, "the table itself must not change"
    refused(lambda: ModelConfig.preset("tiny", n_group=5), "n_group = 5")
    assert TrainConfig.preset("small", steps=7).steps == 7


# What follows from the fields.


def test_a_longer_context_is_yarn_over_the_length_of_training():
    plain = ModelConfig.preset("tiny")
    found = plain.extended(4, trained_length=256)
    assert found == plain.replace(
        rope_scaling=Yarn(factor=4, original_max_position_embeddings=256), max_position_embeddings=1024
    )
    assert plain.extended(2).max_position_embeddings == 2 * plain.max_position_embeddings
    lite = ModelConfig.preset("deepseek-v2-lite")  # has YaRN with constants of its own, over 4,096 tokens
    assert lite.extended(40) == lite and lite.extended(8).max_position_embeddings == 8 * 4096
    with pytest.raises(MinidsError, match=r"rope_scaling.factor = 0\.5"):
        plain.extended(0.5)


def test_derived_sizes():
    assert TINY.qk_head_dim == 48
    assert [TINY.is_moe(i) for i in range(6)] == [False, True, True, True, True, True]
    assert TINY.kv_heads == 4
    assert TINY.replace(attention="mqa").kv_heads == 1
    assert TINY.replace(attention="gqa", num_key_value_heads=2).kv_heads == 2
    assert TrainConfig(batch_size=3, context_length=5, gradient_accumulation_steps=7).tokens_per_step == 105


@pytest.mark.parametrize("cls", [ModelConfig, TrainConfig, Yarn])
def test_configs_are_frozen_and_every_field_has_a_type(cls):
    made = cls()
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        assert field.name in hints
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, 1)


def test_v3s_own_recipe_is_one_option_away_from_a_preset_that_trains_by_muon():
    ours, theirs, plain = TrainConfig.preset("tiny"), TrainConfig.preset("tiny", optimizer="adamw"), TrainConfig()
    assert ours.optimizer == "muon" and theirs.optimizer == "adamw"
    for field in ("learning_rate", "constant_until", "decay_until", "final_from", "decay_shape", "decay_to", "mtp_from"):
        assert getattr(theirs, field) == getattr(plain, field) != getattr(ours, field), field
    assert (theirs.steps, theirs.context_length) == (ours.steps, ours.context_length)
