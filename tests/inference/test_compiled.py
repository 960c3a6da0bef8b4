"""The compiled step computes what the layers do, for every model that it says it covers, whatever the company."""

import dataclasses

import numpy as np
import pytest
from support import SHORT_YARN, TINY, V2_ROUTER, build

from minids.backend import use_backend
from minids.config import ModelConfig
from minids.inference import compiled
from minids.inference.decoder import Decoder

# Everything that a forward pass reads, and nowhere what it is by default: two defaults that are equal hide a wrong name.
NO_DEFAULTS = TINY.replace(
    q_lora_rank=None,
    n_shared_experts=2,
    num_experts_per_tok=2,
    topk_group=1,
    routed_scaling_factor=1.7,
    rope_theta=500.0,
    rope_interleave=False,
    rope_scaling=SHORT_YARN,
    rms_norm_eps=0.03,
    attention_bias=True,
    tie_word_embeddings=True,
    mtp_state="unnormed",
    mtp_own_matrices=True,
    **{name: V2_ROUTER[name] for name in ("scoring_func", "topk_method", "norm_topk_prob", "balance")},
)
ELSEWHERE = {
    "attention": "the step serves MLA only",
    "precision": "the step serves fp32 only",
    "num_key_value_heads": "no heads of MLA's",
    "bos_token_id": "of a text, not of a step",
    "eos_token_id": "of a text, not of a step",
} | dict.fromkeys(
    ("initializer_range", "bias_update_speed", "bias_update_rule", "aux_loss_alpha", "seq_aux", "aux_loss_counts"),
    "of training",
)
COVERED = {
    "V3": TINY,
    "no field as it is by default": NO_DEFAULTS,
    "the same with a query latent": NO_DEFAULTS.replace(q_lora_rank=7),
    "the same with V3's router": NO_DEFAULTS.replace(
        topk_method="noaux_tc", scoring_func="sigmoid", balance="bias", norm_topk_prob=True
    ),
    "a query latent of one number": TINY.replace(q_lora_rank=1),
    "V2's router": TINY.replace(**V2_ROUTER),
    "no groups": TINY.replace(n_group=1, topk_group=1),
    "no groups, no bias, raw gates": TINY.replace(
        n_group=1, topk_group=1, topk_method="greedy", balance="none", norm_topk_prob=False
    ),
    "no shared expert, all layers with experts": TINY.replace(n_shared_experts=0, first_k_dense_replace=0),
    "more shared experts than chosen ones": TINY.replace(n_shared_experts=4, num_experts_per_tok=2),
    "two shared experts, all layers dense": TINY.replace(n_shared_experts=2, first_k_dense_replace=2),
}
TOKENS = np.random.default_rng(0).integers(0, 19, 24)


def test_no_field_has_its_default():
    defaults = ModelConfig()
    for field in dataclasses.fields(ModelConfig):
        if field.name.startswith(("fp8", "mtp_loss")) or field.name in ELSEWHERE:
            continue
        assert getattr(NO_DEFAULTS, field.name) != getattr(defaults, field.name), f"{field.name} is what it is by default"


@pytest.mark.parametrize("name", COVERED)
def test_the_step_equals_the_full_forward_pass(name):
    model = build(COVERED[name])
    decoder = Decoder(model, compiled=True)
    got = [decoder.logits(decoder.read(chunk[None])[0]) for chunk in np.split(TOKENS, [1, 2, 5, 6])]  # the last has 18 rows
    assert np.abs(np.concatenate(got) - model.logits(TOKENS[None])[0]).max() < 1e-10


@pytest.mark.parametrize("name", ["V3", "no field as it is by default"])
def test_mtp_modules_too(name):
    model = build(COVERED[name])
    decoder = Decoder(model, compiled=True)
    h = Decoder(model, "none").read(TOKENS[None])[0]
    for depth, want in enumerate(model.mtp_logits(TOKENS[None]), start=1):
        parts, n = [], len(TOKENS) - depth
        for rows in np.split(np.arange(n), [3, 4, 12]):
            parts.append(decoder.read_mtp(depth, TOKENS[rows + depth], h[rows]))
        states = np.concatenate(parts)
        assert np.abs(decoder.mtp_logits(depth, states) - want[0]).max() < 1e-10, f"depth {depth}"
        h = decoder.handed_on(depth, states)


def test_what_a_skipped_position_puts_into_the_cache_is_what_it_would_have_put():
    """And of the others comes out what would have come out."""
    model, states = build(TINY), np.random.default_rng(1).normal(size=(9, TINY.hidden_size))
    whole, skipping = Decoder(model), Decoder(model)
    for rows in (slice(0, 5), slice(5, 9)):
        want = whole.read_mtp(1, TOKENS[rows], states[rows])
        assert np.array_equal(skipping.read_mtp(1, TOKENS[rows], states[rows], skip=3), want[3:])


def test_a_router_without_a_bias_chooses_by_its_scores_alone():
    """Whatever is added to all scores alike drowns the small ones' differences."""
    model = build(COVERED["no groups, no bias, raw gates"], dtype=np.float32)
    assert all(layer.bias is None for layer in model.moe_layers) and not compiled.Step(model).biases.any()


def test_a_token_gets_the_same_bits_alone_and_in_company():
    """What makes checked guesses and single steps agree to the last bit, so that a near tie cannot fall two ways."""
    model = build(TINY, dtype=np.float32)
    alone, together = Decoder(model), Decoder(model)
    one_by_one = np.concatenate([alone.read(TOKENS[None, i : i + 1])[0] for i in range(12)])
    at_once = np.concatenate([together.read(TOKENS[None, i : i + 4])[0] for i in range(0, 12, 4)])
    assert np.array_equal(one_by_one, at_once)
    assert np.array_equal(alone.logits(one_by_one[:4]), np.concatenate([together.logits(h[None]) for h in at_once[:4]]))


def test_which_steps_are_compiled(monkeypatch):
    model, taken = build(TINY), []
    real = compiled.Step.main
    monkeypatch.setattr(compiled.Step, "main", lambda self, *rest: taken.append(len(rest[0])) or real(self, *rest))
    few, many = TOKENS[None, : compiled.MOST_ROWS], TOKENS[None, : compiled.MOST_ROWS + 1]
    for choice, wanted in ((None, [16]), (True, [16, 17]), (False, [])):
        taken.clear()
        for tokens in (few, many):
            Decoder(model, compiled=choice).read(tokens)
        assert taken == wanted, f"compiled = {choice}"
    taken.clear()
    many_texts = Decoder(model, batch=20)
    for tokens in (TOKENS[:20, None], np.ones((20, 2), np.int64)):
        many_texts.read(tokens)
    assert taken == [20], "a token for each of many sequences is a small step"
    taken.clear()
    for other in (dict(cache="full"), dict(cache="none"), dict(absorb=False)):
        Decoder(model, **other).read(few)
    Decoder(build(TINY.replace(attention="mha"))).read(few)
    with use_backend("numpy"):
        Decoder(model).read(few)
    assert not taken
