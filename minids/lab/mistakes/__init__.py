"""Mistakes that public implementations of DeepSeek-V3 repeat, each as a wrong line that can be put into this package.

    with made(parallel_mtp_heads):
        ...  # in here the package is wrong

A mistake is a function that replaces an operation or a method by a wrong one; its docstring says what it does wrong. It takes
whatever has ``setattr(target, name, value)`` and undoes it later: ``made`` does, and so does pytest's monkeypatch. The wrong
lines are put into the NumPy operations, so the NumPy backend must be the one that runs: ``made`` sees to it.

``MISTAKES`` names for each the test that must fail with it (tests/guards holds it to that), and the weak checks that happen to
notice it, with the reason. A further mistake is one function and one line of that table.

Wherever the mistake allows it the wrong version is consistent within itself: its backward is the derivative of its wrong
forward. That is how the mistake occurs in earnest, and it is then invisible to a gradient check alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from minids.backend import use_backend
from minids.checkpoint import model_folder
from minids.inference import speculative
from minids.inference.cache import FullCache, LatentCache
from minids.layers.basic import Linear
from minids.layers.mla import MLA, SavedLatent
from minids.layers.moe import MoE
from minids.layers.mtp import MTPModule
from minids.layers.mtp import Saved as SavedModule
from minids.model import DeepSeekV3
from minids.ops import attention, balance_loss, bias_update, mtp_combine, rope, router, yarn
from minids.training.batches import Batches


@contextmanager
def made(mistake: Callable) -> Iterator[None]:
    """Within it the mistake is made, by the NumPy backend; afterwards everything is as it was."""
    patch = _Patch()
    try:
        mistake(patch)
        with use_backend("numpy"):
            yield
    finally:
        patch.undo()


class _Patch:
    """Replaces attributes and remembers what they were."""

    def __init__(self):
        self.before: list[tuple[Any, str, Any]] = []

    def setattr(self, target, name: str, value) -> None:
        self.before.append((target, name, vars(target)[name]))
        setattr(target, name, value)

    def undo(self) -> None:
        while self.before:
            setattr(*self.before.pop())


# The router and its bias.


def gates_from_biased_scores(patch):
    """The gate weights are taken from s + b: the balancing bias leaks into the output."""
    right, right_backward = router.forward, router.backward

    def wrong(logits, bias, *arguments, **named):
        routing, saved = right(logits, bias, *arguments, **named)
        biased = np.take_along_axis(routing.scores + (0 if bias is None else bias), routing.chosen, axis=-1)
        gates = biased / biased.sum(axis=-1, keepdims=True) if saved.normalise else biased
        return routing._replace(gates=gates * saved.scale), (saved, biased)

    def wrong_backward(d_gates, d_scores, saved_both):
        saved, biased = saved_both
        ds = d_gates * saved.scale
        if saved.normalise:
            total = biased.sum(axis=-1, keepdims=True)
            ds = (ds - np.sum(ds * biased, axis=-1, keepdims=True) / total) / total
        all_ds = np.zeros_like(saved.scores)
        np.put_along_axis(all_ds, saved.chosen, ds, axis=-1)
        return right_backward(np.zeros_like(d_gates), all_ds if d_scores is None else all_ds + d_scores, saved)

    patch.setattr(router, "forward", wrong)
    patch.setattr(router, "backward", wrong_backward)


def softmax_gate(patch):
    """The scores are a softmax over the experts, as in V2, whatever the configuration says."""
    right = router.forward

    def wrong(logits, bias, top_k, n_group=1, topk_group=1, scoring="sigmoid", *rest, **named):
        return right(logits, bias, top_k, n_group, topk_group, "softmax", *rest, **named)

    patch.setattr(router, "forward", wrong)


def forbidden_groups_set_to_zero(patch):
    """Experts outside the kept groups get the score 0 instead of −∞: a negative biased score loses to them."""

    def wrong(biased, top_k, n_group=1, topk_group=1, method="noaux_tc"):
        tokens, experts = biased.shape
        if method != "greedy" and topk_group < n_group:
            grouped = biased.reshape(tokens, n_group, experts // n_group)
            best = np.sort(grouped, axis=-1)[..., -2:] if method == "noaux_tc" else grouped.max(axis=-1, keepdims=True)
            kept = np.argsort(-best.sum(axis=-1), axis=-1, kind="stable")[:, :topk_group]
            allowed = np.zeros((tokens, n_group), dtype=bool)
            np.put_along_axis(allowed, kept, True, axis=-1)
            biased = biased * np.repeat(allowed, experts // n_group, axis=-1)
        return np.argsort(-biased, axis=-1, kind="stable")[:, :top_k]

    patch.setattr(router, "choose", wrong)


def bias_moved_the_wrong_way(patch):
    """An overloaded expert gets a higher bias: the imbalance feeds itself."""
    right = bias_update.updated
    patch.setattr(bias_update, "updated", lambda bias, counts, speed, rule="sign": right(bias, counts, -speed, rule))


def bias_updated_in_evaluation(patch):
    """Computing a validation loss moves the bias: evaluation changes the model."""
    right = DeepSeekV3.losses

    def wrong(self, tokens, targets, mtp=True, chosen=None):
        losses = right(self, tokens, targets, mtp, chosen)
        for layer, count in zip(self.moe_layers, losses.counts, strict=False):
            layer.update_bias(count, self.config.bias_update_speed)
        return losses

    patch.setattr(DeepSeekV3, "losses", wrong)


def bias_updated_in_every_backward_pass(patch):
    """The bias moves with every micro-batch and not once per optimizer step."""
    right = DeepSeekV3.forward_backward

    def wrong(self, *arguments, **named):
        losses = right(self, *arguments, **named)
        self.update_biases(losses.counts, self.config.bias_update_speed)
        return losses

    patch.setattr(DeepSeekV3, "forward_backward", wrong)


def balance_loss_from_detached_scores(patch):
    """The balance loss is added to the loss and its gradient is zero, because the scores in it were detached."""
    patch.setattr(
        balance_loss, "backward", lambda d_loss, saved: np.zeros(saved.share.shape).reshape(-1, saved.share.shape[-1])
    )


def residual_inside_the_moe_layer(patch):
    """The MoE layer adds its input, as eq. 12 is printed, and the block adds it again (and normalised at that)."""
    forward, backward = MoE.forward, MoE.backward

    def wrong_forward(self, x, chosen=None):
        y, saved = forward(self, x, chosen)
        return y + x, saved

    patch.setattr(MoE, "forward", wrong_forward)
    patch.setattr(MoE, "backward", lambda self, dy, saved, loss_weight=1.0: backward(self, dy, saved, loss_weight) + dy)


# Latent attention.


def rope_key_per_head(patch):
    """Every head has a rotary key of its own: the cache grows by the number of heads."""
    init = MLA.__init__

    def wrong_init(self, config, parameters, name):
        init(self, config, parameters, name)
        self.k_rope_proj = Linear(parameters, f"{name}.k_rope_proj", self.heads * self.d_rope, config.hidden_size)

    def wrong_latent(self, x, rotary):
        both, saved_down = self.kv_a_proj.forward(x)
        c_kv, saved_norm = self.kv_a_layernorm.forward(both[..., : self.d_latent])
        k_rope, saved_key = self.k_rope_proj.forward(x)
        k_rope, saved_rope = rope.forward(k_rope.reshape(*x.shape[:-1], self.heads, self.d_rope), *rotary, self.interleave)
        return c_kv, k_rope, SavedLatent((saved_down, saved_key), saved_norm, saved_rope)

    def wrong_latent_backward(self, d_c_kv, d_k_rope, saved):
        d_k_rope = rope.backward(d_k_rope, saved.rope)
        dx = self.k_rope_proj.backward(d_k_rope.reshape(*d_k_rope.shape[:-2], -1), saved.down[1])
        d_c_kv = self.kv_a_layernorm.backward(d_c_kv, saved.norm)
        unused = np.zeros((*d_c_kv.shape[:-1], self.d_rope), d_c_kv.dtype)
        return dx + self.kv_a_proj.backward(np.concatenate([d_c_kv, unused], axis=-1), saved.down[0])

    def wrong_keys_values_backward(self, dk, dv, saved_up):
        d_kv = np.concatenate([dk[..., : self.d_nope], dv], axis=-1)
        return self.kv_b_proj.backward(d_kv.reshape(*d_kv.shape[:-2], -1), saved_up), dk[..., self.d_nope :]

    patch.setattr(MLA, "__init__", wrong_init)
    patch.setattr(MLA, "latent", wrong_latent)
    patch.setattr(MLA, "_latent_backward", wrong_latent_backward)
    patch.setattr(MLA, "_keys_values_backward", wrong_keys_values_backward)


def rope_key_from_the_latent(patch):
    """The rotary key is made from the normalised latent instead of from the hidden state."""
    init = MLA.__init__

    def wrong_init(self, config, parameters, name):
        init(self, config, parameters, name)
        self.k_rope_proj = Linear(parameters, f"{name}.k_rope_proj", self.d_rope, self.d_latent)

    def wrong_latent(self, x, rotary):
        both, saved_down = self.kv_a_proj.forward(x)
        c_kv, saved_norm = self.kv_a_layernorm.forward(both[..., : self.d_latent])
        k_rope, saved_key = self.k_rope_proj.forward(c_kv)
        k_rope, saved_rope = rope.forward(k_rope[..., None, :], *rotary, self.interleave)
        return c_kv, k_rope, SavedLatent((saved_down, saved_key), saved_norm, saved_rope)

    def wrong_latent_backward(self, d_c_kv, d_k_rope, saved):
        d_k_rope = rope.backward(d_k_rope, saved.rope)[..., 0, :]
        d_c_kv = self.kv_a_layernorm.backward(d_c_kv + self.k_rope_proj.backward(d_k_rope, saved.down[1]), saved.norm)
        unused = np.zeros((*d_c_kv.shape[:-1], self.d_rope), d_c_kv.dtype)
        return self.kv_a_proj.backward(np.concatenate([d_c_kv, unused], axis=-1), saved.down[0])

    patch.setattr(MLA, "__init__", wrong_init)
    patch.setattr(MLA, "latent", wrong_latent)
    patch.setattr(MLA, "_latent_backward", wrong_latent_backward)


def rope_key_gradient_of_one_head(patch):
    """The shared rotary key gets the gradient of the first head instead of the sum over all of them."""

    def wrong(self, dk, dv, saved_up):
        d_kv = np.concatenate([dk[..., : self.d_nope], dv], axis=-1)
        return self.kv_b_proj.backward(d_kv.reshape(*d_kv.shape[:-2], -1), saved_up), dk[:, :, :1, self.d_nope :]

    patch.setattr(MLA, "_keys_values_backward", wrong)


def rope_in_the_other_layout(patch):
    """Half-split pairs where the weights are interleaved, and the reverse: other weights fit, a checkpoint's do not."""
    right = rope.forward
    patch.setattr(rope, "forward", lambda x, cos, sin, interleave=True: right(x, cos, sin, not interleave))


def linear_interpolation_as_yarn(patch):
    """All frequencies are divided by the factor: position interpolation under YaRN's name."""
    patch.setattr(
        yarn, "yarn_frequencies", lambda rope_dim, base, factor, *rest, **named: yarn.plain_frequencies(rope_dim, base) / factor
    )


def yarn_with_a_reversed_ramp(patch):
    """The fast pairs are slowed down and the slow ones kept."""
    right = yarn.ramp
    patch.setattr(yarn, "ramp", lambda *arguments: 1 - right(*arguments))


def yarn_without_mscale(patch):
    """The softmax scale stays (d_nope + d_r)^(−1/2): the attention over a longer context is too flat."""
    patch.setattr(yarn, "mscale", lambda factor, weight: 1.0)


# Multi-token prediction.


def mtp_head_without_the_block(patch):
    """The joined embedding and state go straight to the norm and the head: the module's block has no say."""

    def wrong_forward(self, embedding, hidden, rotary, chosen=None):
        gains = self.enorm.value, self.hnorm.value, self.eh_proj.value
        x, saved_combine = mtp_combine.forward(embedding, hidden, *gains, self.eps)
        _, saved_block = self.block.forward(x, rotary, chosen)
        h, saved_norm = self.norm.forward(x)
        return h, SavedModule(saved_combine, saved_block, saved_norm)

    def wrong_backward(self, dh, saved, loss_weight=1.0):
        d_embedding, d_hidden, *d_parameters = mtp_combine.backward(self.norm.backward(dh, saved.norm), saved.combine)
        for parameter, gradient in zip((self.enorm, self.hnorm, self.eh_proj), d_parameters, strict=True):
            parameter.grad += gradient
        return d_embedding, d_hidden

    patch.setattr(MTPModule, "forward", wrong_forward)
    patch.setattr(MTPModule, "backward", wrong_backward)


def parallel_mtp_heads(patch):
    """Every depth reads the main model's state instead of the depth before it: no chain. (Its gradient still goes there.)"""
    right = DeepSeekV3._deeper

    def wrong(self, module, depth, tokens, hidden, chosen):
        if depth == 1:
            self.state_for_all_heads = hidden
        return right(self, module, depth, tokens, self.state_for_all_heads, chosen)

    patch.setattr(DeepSeekV3, "_deeper", wrong)


def mtp_shown_its_target(patch):
    """Depth k is shown token i + k + 1, which it has to predict (the last position, which has none, is shown another)."""
    right = DeepSeekV3._deeper

    def wrong(self, module, depth, tokens, hidden, chosen):
        return right(self, module, depth, np.roll(tokens, -1, axis=1), hidden, chosen)

    patch.setattr(DeepSeekV3, "_deeper", wrong)


# Serving and resuming.


def cache_offset_forgotten(patch):
    """The causal mask of a chunk starts at the first key instead of where the chunk stands: right for the first chunk only."""
    right = attention.forward

    def wrong(q, k, v, scale):
        chunk = q.shape[1]
        return right(q, k[:, :chunk], v[:, :chunk], scale)

    patch.setattr(attention, "forward", wrong)


def resumed_from_the_beginning_of_the_data(patch):
    """A resumed run begins its epoch again: it reads the same text twice, and is not the run that was interrupted."""
    right = Batches.restore

    def wrong(self, state):
        right(self, state)
        self.position = 0

    patch.setattr(Batches, "restore", wrong)


def resumed_without_the_generator(patch):
    """The random generator is not put back: to the end of the epoch all is right, then another order of the text follows."""
    right = Batches.restore

    def wrong(self, state):
        before = self.rng.bit_generator.state
        right(self, state)
        self.rng.bit_generator.state = before

    patch.setattr(Batches, "restore", wrong)


def resumed_without_the_routing_bias(patch):
    """The routing biases, which are no parameters, are left at zero when a checkpoint is read: the balance is lost."""
    right = model_folder.assemble

    def wrong(source, name, *arguments, **named):
        if not name.endswith("e_score_correction_bias"):
            right(source, name, *arguments, **named)

    patch.setattr(model_folder, "assemble", wrong)


SHAPES, NOT_ZERO, FALLING = "shapes", "gradients not zero", "falling loss"
"""The weak checks, which are in tests/lab/guards/test_weak_checks_do_not_notice.py."""


def speculation_by_a_ratio_heuristic(patch) -> None:
    """A guess stands where the model likes it at least half as well as the draft did, with no chance in it."""
    patch.setattr(speculative, "accepts", lambda probability, rng: probability >= 0.5)


def mla_that_caches_full_keys_and_values(patch) -> None:
    """The cache of MLA holds the keys and values of every head: nothing is saved."""
    patch.setattr(LatentCache, "shapes", staticmethod(FullCache.shapes))


class Mistake(NamedTuple):
    put_in: Callable
    noticed_by: str  # the test that must fail, as pytest names it below tests/
    arguments: tuple = ()  # of that test
    also: dict[str, str] = {}  # noqa: RUF012 - weak checks that notice it after all, and why


MISTAKES = [
    Mistake(gates_from_biased_scores, "ops/test_router.py::test_gates_come_from_the_unbiased_score"),
    Mistake(softmax_gate, "ops/test_router.py::test_the_v3_score_looks_at_each_expert_alone"),
    Mistake(forbidden_groups_set_to_zero, "ops/test_router.py::test_a_negative_biased_score_never_loses_to_a_forbidden_expert"),
    Mistake(bias_moved_the_wrong_way, "ops/test_bias_update.py::test_an_overloaded_expert_goes_down_and_an_underloaded_one_up"),
    Mistake(bias_updated_in_evaluation, "model/test_model.py::test_evaluation_leaves_the_whole_model_as_it_was"),
    Mistake(bias_updated_in_every_backward_pass, "model/test_model.py::test_a_training_pass_does_not_move_the_bias_either"),
    Mistake(balance_loss_from_detached_scores, "ops/test_balance_loss.py::test_gradient_reaches_every_score_chosen_or_not"),
    Mistake(residual_inside_the_moe_layer, "layers/test_moe.py::test_forward_is_the_papers_equations"),
    Mistake(rope_key_per_head, "layers/test_mla.py::test_all_heads_share_one_rope_key_straight_from_the_hidden_state"),
    Mistake(rope_key_from_the_latent, "layers/test_mla.py::test_all_heads_share_one_rope_key_straight_from_the_hidden_state"),
    Mistake(rope_key_gradient_of_one_head, "layers/test_mla.py::test_gradient"),
    Mistake(rope_in_the_other_layout, "ops/test_rope.py::test_interleaved_pairs_are_neighbours"),
    Mistake(linear_interpolation_as_yarn, "ops/test_yarn.py::test_frequencies_of_v3"),
    Mistake(yarn_with_a_reversed_ramp, "ops/test_yarn.py::test_frequencies_of_v3"),
    Mistake(yarn_without_mscale, "layers/test_mla.py::test_forward_is_the_papers_equations_in_every_variant", ("YaRN",)),
    Mistake(
        mtp_head_without_the_block,
        "layers/test_mtp.py::test_every_position_sees_the_earlier_ones_through_the_modules_own_block",
        also={NOT_ZERO: "the idle block gets no gradient; a program without such a block has nothing to notice"},
    ),
    Mistake(parallel_mtp_heads, "model/test_model.py::test_depth_two_reads_the_state_of_depth_one"),
    Mistake(mtp_shown_its_target, "model/test_model.py::test_mtp_depth_k_sees_exactly_the_tokens_up_to_i_plus_k"),
    Mistake(cache_offset_forgotten, "inference/test_decoder.py::test_one_token_at_a_time_too", ("mla", "latent", True)),
    Mistake(
        resumed_from_the_beginning_of_the_data,
        "training/test_batches.py::test_a_run_continued_from_any_step_gets_the_batches_it_would_have_got",
        (3, np.random.PCG64),
    ),
    Mistake(
        resumed_without_the_generator,
        "training/test_batches.py::test_a_run_continued_from_any_step_gets_the_batches_it_would_have_got",
        (3, np.random.PCG64),
    ),
    Mistake(
        resumed_without_the_routing_bias,
        "checkpoint/test_model_folder.py::test_every_number_comes_back_the_routing_biases_too",
    ),
]

IN_GENERATION = [
    Mistake(
        speculation_by_a_ratio_heuristic,
        "inference/test_speculative.py::test_refused_guesses_are_replaced_from_what_the_draft_left_out",
    ),
    Mistake(mla_that_caches_full_keys_and_values, "inference/test_cache.py::test_bytes_are_those_of_v2_table_1"),
]
"""The same for what is met after training only, where shapes, gradients and losses have nothing to say."""
