"""The model as a whole: what each output may see, how its losses add up, what evaluation leaves alone, what it refuses."""

import math

import naive
import numpy as np
import pytest
import support
from hypothesis import given
from hypothesis import strategies as st

from minids.errors import MinidsError
from minids.model import DeepSeekV3, routing_fixed

pytestmark = pytest.mark.usefixtures("reference_backend")

TINY = support.TINY
ATTENTION = {
    "mla": {},
    "mha": dict(attention="mha"),
    "gqa": dict(attention="gqa", num_key_value_heads=2),
    "mqa": dict(attention="mqa"),
}


# What each position sees.


def all_logits(model, tokens):
    """Logits of the main model and of every MTP depth."""
    return [model.logits(tokens), *model.mtp_logits(tokens)]


@pytest.mark.parametrize("attention", ATTENTION)
def test_logits_do_not_see_later_tokens(attention):
    model = support.build(TINY.replace(**ATTENTION[attention]))
    tokens, _ = support.batch(length=7)
    before = model.logits(tokens)
    for t in range(7):
        changed = tokens.copy()
        changed[:, t] = (changed[:, t] + 1) % TINY.vocab_size
        moved = np.abs(model.logits(changed) - before).max(axis=(0, 2))
        assert moved[:t].max(initial=0) < 1e-12, f"changing token {t} changed logits before it"
        assert (moved[t:] > 1e-9).all(), f"changing token {t} must change its own logits and all later ones"


def test_mtp_depth_k_sees_exactly_the_tokens_up_to_i_plus_k():
    """At position i, depth k predicts token i + k + 1 and must not have been shown it."""
    model = support.build()
    tokens, _ = support.batch(length=8)
    before = all_logits(model, tokens)
    for t in range(8):
        changed = tokens.copy()
        changed[:, t] = (changed[:, t] + 1) % TINY.vocab_size
        for k, (one, two) in enumerate(zip(before, all_logits(model, changed), strict=True)):
            assert one.shape == (2, 8 - k, TINY.vocab_size)
            moved = np.abs(two - one).max(axis=(0, 2))
            first = max(t - k, 0)
            assert moved[:first].max(initial=0) < 1e-12, f"depth {k}: position before {first} saw token {t}"
            assert (moved[first:] > 1e-9).all(), f"depth {k}: positions from {first} on must see token {t}"


def test_depth_two_reads_the_state_of_depth_one():
    """A chain, not parallel heads: what changes in the first module reaches the second, and the reverse is not so."""
    model = support.build()
    tokens, _ = support.batch()
    main, one, two = all_logits(model, tokens)
    for inner, expected in ((model.mtp[0], (False, True, True)), (model.mtp[1], (False, False, True))):
        inner.eh_proj.value[...] *= 1.5
        moved = [not np.allclose(a, b, rtol=1e-9) for a, b in zip((main, one, two), all_logits(model, tokens), strict=True)]
        inner.eh_proj.value[...] /= 1.5
        assert tuple(moved) == expected


def test_what_a_module_hands_on_is_normed_or_not_as_the_configuration_says():
    """With one module both readings are one. The second module reads h¹ after shared_head.norm, or before."""
    tokens, targets = support.batch()
    for depths in (1, 2):
        config = TINY.replace(num_nextn_predict_layers=depths)
        normed, unnormed = support.build(config), support.build(config.replace(mtp_state="unnormed"))
        one, two = (model.loss_and_grads(tokens, targets) for model in (normed, unnormed))
        assert one[0].main == two[0].main and one[0].mtp[0] == two[0].mtp[0]
        if depths == 1:
            for name, gradient in one[1].items():
                np.testing.assert_allclose(gradient, two[1][name], rtol=1e-12, atol=1e-15)
    assert abs(one[0].mtp[1] - two[0].mtp[1]) > 1e-4
    (state, _), first = unnormed.deeper(1, tokens, unnormed.hidden_states(tokens)[0]), unnormed.mtp[0]
    by_hand, _ = normed.deeper(1, tokens, normed.hidden_states(tokens)[0])
    np.testing.assert_allclose(first.norm.forward(state)[0], by_hand, rtol=1e-12)
    assert np.abs(state - by_hand).max() > 0.01


# How losses add up.


def test_losses_are_the_cross_entropies_of_the_logits_and_their_weighted_sum():
    model = support.build()
    tokens, targets = support.batch(ignored=True)
    losses = model.losses(tokens, targets)
    counted = (targets != -100).sum()
    for k, (loss, logits) in enumerate(zip((losses.main, *losses.mtp), all_logits(model, tokens), strict=True)):
        want = naive.cross_entropy(logits.reshape(-1, TINY.vocab_size), targets[:, k:].reshape(-1), counted)
        assert math.isclose(loss, want, rel_tol=1e-11), f"loss of depth {k}"
    assert losses.balance > 0
    assert math.isclose(losses.total, losses.main + 0.7 / 2 * sum(losses.mtp) + losses.balance, rel_tol=1e-12)


def test_counts_add_up_in_every_layer_so_that_no_token_is_dropped():
    model = support.build()
    counts = model.losses(*support.batch(size=3, length=6)).counts
    assert counts.shape == (3, 8)  # one MoE block of the main model, then those of the two modules
    assert counts.dtype == np.int64, "counts of many batches are added up"
    np.testing.assert_array_equal(counts.sum(1), [3 * 6 * 3, 3 * 5 * 3, 3 * 4 * 3])


def test_without_mtp_the_main_loss_is_the_same():
    model = support.build()
    tokens, targets = support.batch()
    with_mtp, without = model.losses(tokens, targets), model.losses(tokens, targets, mtp=False)
    assert without.main == with_mtp.main and without.mtp == () and without.counts.shape == (1, 8)
    assert math.isclose(without.total, without.main + without.balance, rel_tol=1e-12)


def test_a_model_of_dense_blocks_alone_works():
    model = support.build(TINY.replace(first_k_dense_replace=2, num_nextn_predict_layers=0))
    tokens, targets = support.batch()
    losses, gradients = model.loss_and_grads(tokens, targets)
    assert losses.balance == 0 and losses.counts.shape == (0, 8) and losses.total == losses.main
    assert losses.counts.dtype == np.int64, "whole numbers, where there is nothing to count too"
    assert all(g.any() for g in gradients.values())
    model.update_biases(losses.counts, 0.001)


def test_the_mtp_weight_of_a_call_wins_over_the_configured_one():
    model, other = support.build(), support.build(TINY.replace(mtp_loss_weight=0.1))
    tokens, targets = support.batch()
    model.parameters.zero_grads()
    losses = model.forward_backward(tokens, targets, mtp_loss_weight=0.1)
    want, gradients = other.loss_and_grads(tokens, targets)
    assert losses.total == want.total
    for p in model.parameters:
        support.assert_close(p.grad, gradients[p.name], what=p.name)


def test_shared_embedding_and_head_get_the_sum_over_their_three_uses(monkeypatch):
    """Each use is recorded as it adds its share; the shares make up the whole, and none of them is empty."""
    model = support.build()
    tokens, targets = support.batch()
    shares = {}
    for name, layer in (("embedding", model.embed_tokens), ("head", model.head)):
        shares[name] = []

        def recorded(dy, saved, layer=layer, backward=layer.backward, kept=shares[name]):
            before = layer.weight.grad.copy()
            dx = backward(dy, saved)
            kept.append(layer.weight.grad - before)
            return dx

        monkeypatch.setattr(layer, "backward", recorded)
    gradients = model.loss_and_grads(tokens, targets)[1]
    for name, parameter in (("embedding", "model.embed_tokens.weight"), ("head", "lm_head.weight")):
        assert len(shares[name]) == 3, f"{name}: used by the main model and two modules, so three shares"
        assert all(share.any() for share in shares[name])
        support.assert_close(sum(shares[name]), gradients[parameter], 1e-10, name)


def test_tied_embeddings_get_the_sum_of_the_gradients_of_an_untied_pair():
    tied, untied = support.build(TINY.replace(tie_word_embeddings=True)), support.build()
    for p in tied.parameters:
        untied.parameters[p.name].value[...] = p.value
    untied.parameters["lm_head.weight"].value[...] = tied.parameters["model.embed_tokens.weight"].value
    for name, bias in tied.parameters.buffers.items():
        untied.parameters.buffers[name][...] = bias
    tokens, targets = support.batch()
    (one, tied_gradients), (two, gradients) = tied.loss_and_grads(tokens, targets), untied.loss_and_grads(tokens, targets)
    assert one.total == two.total and "lm_head.weight" not in tied.parameters
    both = gradients["model.embed_tokens.weight"] + gradients["lm_head.weight"]
    support.assert_close(tied_gradients["model.embed_tokens.weight"], both)


# Accumulating gradients.


def halves_and_whole(config, **how):
    model = support.build(config)
    tokens, targets = support.batch(config, size=4, **how)
    whole, gradients = model.loss_and_grads(tokens, targets)
    model.parameters.zero_grads()
    halves = [model.forward_backward(tokens[s], targets[s], weight=0.5) for s in (slice(0, 2), slice(2, 4))]
    return model, whole, gradients, halves


def test_two_halves_at_half_weight_are_the_whole_batch():
    """With the balance loss per sequence everything is a mean over sequences, and the halves add up to the whole exactly."""
    model, whole, gradients, halves = halves_and_whole(TINY)
    for kind in ("total", "main", "balance"):
        assert math.isclose(sum(getattr(h, kind) for h in halves) / 2, getattr(whole, kind), rel_tol=1e-12), kind
    np.testing.assert_array_equal(sum(h.counts for h in halves), whole.counts)
    for p in model.parameters:
        support.assert_close(p.grad, gradients[p.name], 1e-9, p.name)


def test_the_batch_wise_balance_loss_is_the_one_term_that_halves_do_not_reproduce():
    """Σ f P over the whole batch is a product of two means: it is not the mean of the products of its halves."""
    model, whole, gradients, halves = halves_and_whole(TINY.replace(seq_aux=False))
    assert math.isclose(sum(h.main for h in halves) / 2, whole.main, rel_tol=1e-12)
    assert abs(sum(h.balance for h in halves) / 2 - whole.balance) > 1e-4
    head = "lm_head.weight"  # behind all routers, so free of the balance loss
    support.assert_close(model.parameters[head].grad, gradients[head], 1e-9)


def test_halves_with_unequal_numbers_of_counted_targets_are_not_the_whole():
    """Each micro-batch divides by its own number of targets, so weights of one half are right for equal numbers only."""
    _, whole, _, halves = halves_and_whole(TINY, ignored=True)
    assert math.isclose(sum(h.main for h in halves) / 2, whole.main, rel_tol=1e-12), "one is ignored in each half here"
    model = support.build()
    tokens, targets = support.batch(size=4)
    targets[0] = -100
    uneven = [model.losses(tokens[s], targets[s]).main for s in (slice(0, 2), slice(2, 4))]
    assert not math.isclose(sum(uneven) / 2, model.losses(tokens, targets).main, rel_tol=1e-6)


# What a call leaves alone.


def test_evaluation_leaves_the_whole_model_as_it_was():
    """Parameters, gradients and above all the balancing bias, which only an optimizer step may move."""
    model = support.build()
    tokens, targets = support.batch()
    model.forward_backward(tokens, targets)
    parameters = model.parameters
    before = parameters.values.copy(), parameters.grads.copy(), {n: b.copy() for n, b in parameters.buffers.items()}
    model.losses(tokens, targets)
    model.losses(tokens, targets, mtp=False)
    model.choices(tokens, targets)
    all_logits(model, tokens)
    np.testing.assert_array_equal(parameters.values, before[0], err_msg="evaluation changed parameters")
    np.testing.assert_array_equal(parameters.grads, before[1], err_msg="evaluation changed gradients")
    for name, bias in before[2].items():
        np.testing.assert_array_equal(parameters.buffers[name], bias, err_msg=f"evaluation changed {name}")


def test_a_training_pass_does_not_move_the_bias_either():
    """It belongs to the optimizer step: once per step, however many micro-batches there are."""
    model = support.build()
    before = {n: b.copy() for n, b in model.parameters.buffers.items()}
    model.forward_backward(*support.batch())
    for name, bias in before.items():
        np.testing.assert_array_equal(model.parameters.buffers[name], bias)


def test_update_biases_reaches_every_moe_layer_those_of_the_modules_too():
    model = support.build(lively=False)
    counts = model.losses(*support.batch()).counts
    model.update_biases(counts, 0.001)
    for layer, count in zip(model.moe_layers, counts, strict=True):
        np.testing.assert_allclose(layer.bias, 0.001 * np.sign(count.mean() - count), rtol=1e-6)


@pytest.mark.parametrize("balance", ["none", "aux_loss"])
def test_a_model_balanced_otherwise_keeps_its_bias(balance):
    model = support.build(TINY.replace(balance=balance), lively=False)
    model.update_biases(model.losses(*support.batch()).counts, 0.001)
    assert not any(b.any() for b in model.parameters.buffers.values())


# Numbers and seeds.


def test_same_seed_same_bits():
    tokens, targets = support.batch()
    (a, one), (b, two) = (support.build(dtype=np.float32, seed=5).loss_and_grads(tokens, targets) for _ in range(2))
    assert a[:4] == b[:4]
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    assert support.build(seed=6, dtype=np.float32).losses(tokens, targets).main != a.main


def test_a_generator_serves_as_a_seed():
    one, two = DeepSeekV3(TINY, seed=3), DeepSeekV3(TINY, seed=np.random.default_rng(3))
    np.testing.assert_array_equal(one.parameters.values, two.parameters.values)


@pytest.mark.parametrize("attention", ATTENTION)
def test_float32_agrees_with_float64(attention):
    config = TINY.replace(**ATTENTION[attention], initializer_range=0.1)
    single, double = (support.build(config, dtype=dtype) for dtype in (np.float32, np.float64))
    tokens, targets = support.batch()
    logits = single.logits(tokens)
    assert logits.dtype == np.float32
    support.assert_close(logits, double.logits(tokens), 1e-3, "logits")
    (a, one), (b, two) = (m.loss_and_grads(tokens, targets) for m in (single, double))
    assert math.isclose(a.total, b.total, rel_tol=1e-5)
    for name, gradient in one.items():
        assert gradient.dtype == np.float32
        worst = np.abs(gradient - two[name]).max() / np.abs(two[name]).max()
        assert worst < 1e-4, f"{name}: float32 gradient off by {worst:.1e} of its largest entry"


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.uint64])
def test_tokens_of_any_integer_type(kind):
    model = support.build()
    tokens, targets = support.batch()
    assert model.losses(tokens.astype(kind), targets.astype(kind)).total == model.losses(tokens, targets).total
    np.testing.assert_array_equal(model.logits(tokens.astype(kind).tolist()), model.logits(tokens))


# What it refuses, each in one line.

TOKENS, TARGETS = support.batch()


def choices(model):
    return model.choices(TOKENS, TARGETS)


def fixed(model, chosen, tokens=TOKENS, targets=TARGETS, **more):
    with routing_fixed(model, chosen):
        return model.losses(tokens, targets, **more)


REFUSED = {
    "token above the vocabulary": (lambda m: m.logits(np.array([[0, 19]])), r"tokens\[0, 1\] = 19.*0 to 18"),
    "negative token": (lambda m: m.logits(np.array([[0], [-3]])), r"tokens\[1, 0\] = -3.*0 to 18"),
    "target above the vocabulary": (lambda m: m.losses(np.array([[0, 1]]), np.array([[1, 99]])), r"targets\[0, 1\] = 99"),
    "negative target that is not -100": (lambda m: m.losses(TOKENS, np.full_like(TOKENS, -1)), r"targets\[0, 0\] = -1"),
    "one axis": (
        lambda m: m.logits(np.array([1, 2])),
        r"tokens: expected integers of shape \(batch, time\), got int64 of shape \(2,\)",
    ),
    "three axes": (lambda m: m.logits(np.zeros((1, 2, 3), int)), r"shape \(1, 2, 3\)"),
    "floats": (lambda m: m.logits(np.zeros((1, 2))), "float64"),
    "text": (lambda m: m.logits("abc"), "tokens"),
    "ragged lists": (lambda m: m.logits([[1, 2], [3]]), "tokens"),
    "nothing": (lambda m: m.logits(np.zeros((2, 0), int)), r"shape \(2, 0\)"),
    "targets of another shape": (
        lambda m: m.losses(TOKENS, TARGETS[:, 1:]),
        r"targets: expected integers of the tokens' shape",
    ),
    "targets of floats": (lambda m: m.losses(TOKENS, TARGETS * 1.0), "float64"),
    "choices of too few layers": (lambda m: fixed(m, choices(m)[:1]), "chosen = 'those of 1 layers'.*there are 3 layers"),
    "choices of other tokens": (
        lambda m: fixed(m, choices(m), TOKENS[:1], TARGETS[:1]),
        r"chosen = 'experts of 12 tokens': model.layers.1.mlp is given 6 tokens",
    ),
    "choices of other numbers": (
        lambda m: fixed(m, [c[:, :2] for c in choices(m)]),
        r"chosen\[0\] = 'int64 of shape \(12, 2\)': must be integers of shape \(tokens, 3\)",
    ),
    "choices beyond the experts": (lambda m: fixed(m, [c + 90 for c in choices(m)]), r"chosen\[0\] = 9\d"),
    "negative choices": (lambda m: fixed(m, [c - 9 for c in choices(m)]), r"chosen\[0\] = -\d"),
    "context too short for the modules": (lambda m: m.losses(TOKENS[:, :2], TARGETS[:, :2]), "context_length = 2.*2 MTP"),
    "context too short, training": (lambda m: m.forward_backward(TOKENS[:, :1], TARGETS[:, :1]), "context_length = 1"),
    "context too short, MTP logits": (lambda m: m.mtp_logits(TOKENS[:, :2]), "context_length = 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_answered_by_one_clear_line(name):
    call, message = REFUSED[name]
    with pytest.raises(MinidsError, match=message) as caught:
        call(support.build())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [dict(dtype=np.int32), dict(dtype=np.float16), dict(seed=-1), dict(seed=1.5)], ids=str)
def test_a_model_of_other_numbers_is_refused(wrong):
    with pytest.raises(MinidsError, match=next(iter(wrong))):
        DeepSeekV3(TINY, **wrong)


def test_choices_of_modules_that_are_left_out_may_be_given():
    model = support.build()
    given = choices(model)
    assert fixed(model, given, mtp=False).main == model.losses(TOKENS, TARGETS, mtp=False).main


def test_a_fixed_choice_ends_with_its_block_and_is_no_business_of_models_on_the_same_weights():
    model = support.build()
    other, free = model.sharing_weights(), choices(model)
    turned = [(c + 1) % TINY.n_routed_experts for c in free]
    with pytest.raises(ZeroDivisionError), routing_fixed(model, turned):
        assert all(map(np.array_equal, choices(model), turned)) and all(map(np.array_equal, choices(other), free))
        with routing_fixed(model, free):
            assert all(map(np.array_equal, choices(model), free))
        assert all(map(np.array_equal, choices(model), turned))
        raise ZeroDivisionError
    assert all(map(np.array_equal, choices(model), free))


@pytest.mark.parametrize("mtp", [True, False])
def test_forward_then_backward_is_forward_backward(mtp):
    """``mtp=False`` is the gradient of the main loss and the balance alone: the modules get none."""
    model = support.build()
    losses, saved = model.forward(TOKENS, TARGETS, mtp_loss_weight=0.2, mtp=mtp)
    model.parameters.zero_grads()
    model.backward(saved, 0.5)
    got = model.parameters.grads.copy()
    other = (
        model if mtp else DeepSeekV3(TINY.replace(num_nextn_predict_layers=0), dtype=np.float64, parameters=model.parameters)
    )
    model.parameters.zero_grads()
    assert other.forward_backward(TOKENS, TARGETS, 0.5, 0.2)[:4] == losses[:4]
    np.testing.assert_array_equal(model.parameters.grads, got)


def test_a_model_on_ready_parameters_takes_them_as_they_are():
    model = support.build(dtype=np.float32)
    before = model.parameters.values.copy()
    other = DeepSeekV3(TINY.replace(topk_group=4), parameters=model.parameters)
    np.testing.assert_array_equal(model.parameters.values, before)
    assert (
        other.parameters is model.parameters
        and other.blocks[0].attention.o_proj.weight is model.blocks[0].attention.o_proj.weight
    )
    with pytest.raises(KeyError, match=r"no model\.embed_tokens\.weight of shape"):
        DeepSeekV3(TINY.replace(vocab_size=20), parameters=model.parameters)
    with pytest.raises(KeyError, match=r"no model\.layers\.4"):
        DeepSeekV3(TINY.replace(num_hidden_layers=3), parameters=model.parameters)


def test_a_short_context_is_fine_for_the_main_model():
    model = support.build()
    assert model.logits(TOKENS[:, :1]).shape == (2, 1, 19)
    assert model.losses(TOKENS[:, :1], TARGETS[:, :1], mtp=False).main > 0
    assert len(model.losses(TOKENS[:, :3], TARGETS[:, :3]).mtp) == 2


@given(st.integers(-(2**40), 2**40))
def test_only_ids_of_the_vocabulary_are_accepted(token):
    model = support.build(TINY.replace(num_nextn_predict_layers=0, num_hidden_layers=1), dtype=np.float32)
    if 0 <= token < TINY.vocab_size:
        assert np.isfinite(model.logits(np.array([[token]]))).all()
    else:
        with pytest.raises(MinidsError):
            model.logits(np.array([[token]]))
