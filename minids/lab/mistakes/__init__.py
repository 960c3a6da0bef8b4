"""Mistakes that public implementations of DeepSeek-V3 repeat, each as a wrong line that can be put into this package.

    with made(parallel_mtp_heads):
        ...  # in here the package is wrong

A mistake is a function that replaces an operation or a method by a wrong one; its docstring says what it does wrong. NumPy's
operations are the ones replaced, so ``made`` has the NumPy backend run. The test suite has to notice every mistake.

Wherever the mistake allows it the wrong version is consistent within itself: its backward is the derivative of its wrong
forward. That is how the mistake occurs in earnest, and it is then invisible to a gradient check alone.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from minids.backend import replaced, use_backend
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

Replace = Callable[..., None]  # replace(owner, name=wrong): ``backend.replaced``, undone when the mistake ends
Mistake = Callable[[Replace], None]


@contextmanager
def made(mistake: Mistake) -> Iterator[None]:
    """Within it the mistake is made, by the NumPy backend; afterwards everything is as it was."""
    with ExitStack() as stack:
        stack.enter_context(use_backend("numpy"))
        mistake(lambda owner, **wrong: stack.enter_context(replaced(owner, **wrong)))
        yield


# The router and its bias.


def gates_from_biased_scores(replace: Replace) -> None:
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

    replace(router, forward=wrong, backward=wrong_backward)


def softmax_gate(replace: Replace) -> None:
    """The scores are a softmax over the experts, as in V2, whatever the configuration says."""
    right = router.forward

    def wrong(logits, bias, top_k, n_group=1, topk_group=1, scoring="sigmoid", *rest, **named):
        return right(logits, bias, top_k, n_group, topk_group, "softmax", *rest, **named)

    replace(router, forward=wrong)


def forbidden_groups_set_to_zero(replace: Replace) -> None:
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

    replace(router, choose=wrong)


def bias_moved_the_wrong_way(replace: Replace) -> None:
    """An overloaded expert gets a higher bias: the imbalance feeds itself."""
    right = bias_update.updated
    replace(bias_update, updated=lambda bias, counts, speed, rule="sign": right(bias, counts, -speed, rule))


def bias_updated_in_evaluation(replace: Replace) -> None:
    """Computing a validation loss moves the bias: evaluation changes the model."""
    right = DeepSeekV3.losses

    def wrong(self, tokens, targets, mtp=True):
        losses = right(self, tokens, targets, mtp)
        for layer, count in zip(self.moe_layers[: len(losses.counts)], losses.counts, strict=True):
            layer.update_bias(count, self.config.bias_update_speed)
        return losses

    replace(DeepSeekV3, losses=wrong)


def bias_updated_in_every_backward_pass(replace: Replace) -> None:
    """The bias moves with every micro-batch and not once per optimizer step."""
    right = DeepSeekV3.forward_backward

    def wrong(self, *arguments, **named):
        losses = right(self, *arguments, **named)
        self.update_biases(losses.counts, self.config.bias_update_speed)
        return losses

    replace(DeepSeekV3, forward_backward=wrong)


def balance_loss_from_detached_scores(replace: Replace) -> None:
    """The balance loss is added to the loss and its gradient is zero, because the scores in it were detached."""
    replace(balance_loss, backward=lambda d_loss, saved: np.zeros_like(saved.share).reshape(-1, saved.share.shape[-1]))


def residual_inside_the_moe_layer(replace: Replace) -> None:
    """The MoE layer adds its input, as eq. 12 is printed, and the block adds it again (and normalised at that)."""
    forward, backward = MoE.forward, MoE.backward

    def wrong_forward(self, x):
        y, saved = forward(self, x)
        return y + x, saved

    def wrong_backward(self, dy, saved, loss_weight=1.0):
        return backward(self, dy, saved, loss_weight) + dy

    replace(MoE, forward=wrong_forward, backward=wrong_backward)


# Latent attention.


def _latent_backward(mla: MLA, d_latent, saved_down):
    """Back through ``kv_a_proj`` where the rotary part of its output goes unused."""
    unused = np.zeros((*d_latent.shape[:-1], mla.d_rope), d_latent.dtype)
    return mla.kv_a_proj.backward(np.concatenate([d_latent, unused], axis=-1), saved_down)


def rope_key_per_head(replace: Replace) -> None:
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
        return dx + _latent_backward(self, self.kv_a_layernorm.backward(d_c_kv, saved.norm), saved.down[0])

    def wrong_keys_values_backward(self, dk, dv, saved_up):
        d_kv = np.concatenate([dk[..., : self.d_nope], dv], axis=-1)
        return self.kv_b_proj.backward(d_kv.reshape(*d_kv.shape[:-2], -1), saved_up), dk[..., self.d_nope :]

    replace(MLA, __init__=wrong_init, latent=wrong_latent)
    replace(MLA, latent_backward=wrong_latent_backward, keys_values_backward=wrong_keys_values_backward)


def rope_key_from_the_latent(replace: Replace) -> None:
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
        return _latent_backward(self, d_c_kv, saved.down[0])

    replace(MLA, __init__=wrong_init, latent=wrong_latent, latent_backward=wrong_latent_backward)


def rope_key_gradient_of_one_head(replace: Replace) -> None:
    """The shared rotary key gets the gradient of the first head instead of the sum over all of them."""

    def wrong(self, dk, dv, saved_up):
        d_kv = np.concatenate([dk[..., : self.d_nope], dv], axis=-1)
        return self.kv_b_proj.backward(d_kv.reshape(*d_kv.shape[:-2], -1), saved_up), dk[:, :, :1, self.d_nope :]

    replace(MLA, keys_values_backward=wrong)


def rope_in_the_other_layout(replace: Replace) -> None:
    """Half-split pairs where the weights are interleaved, and the reverse: other weights fit, a checkpoint's do not."""
    right = rope.forward
    replace(rope, forward=lambda x, cos, sin, interleave=True: right(x, cos, sin, not interleave))


def linear_interpolation_as_yarn(replace: Replace) -> None:
    """All frequencies are divided by the factor: position interpolation under YaRN's name."""
    plain = yarn.plain_frequencies
    replace(yarn, yarn_frequencies=lambda rope_dim, base, factor, *rest, **named: plain(rope_dim, base) / factor)


def yarn_with_a_reversed_ramp(replace: Replace) -> None:
    """The fast pairs are slowed down and the slow ones kept."""
    right = yarn.ramp
    replace(yarn, ramp=lambda *arguments: 1 - right(*arguments))


def yarn_without_mscale(replace: Replace) -> None:
    """The softmax scale stays (d_nope + d_r)^(−1/2): the attention over a longer context is too flat."""
    replace(yarn, mscale=lambda factor, weight: 1.0)


# Multi-token prediction.


def mtp_head_without_the_block(replace: Replace) -> None:
    """The joined embedding and state go straight to the norm and the head: the module's block has no say."""

    def wrong_forward(self, embedding, hidden, rotary, starts=None):
        gains = self.enorm.value, self.hnorm.value, self.eh_proj.value
        x, saved_combine = mtp_combine.forward(embedding, hidden, *gains, self.eps)
        _, saved_block = self.block.forward(x, rotary, starts)
        h, saved_norm = self.norm.forward(x)
        return h, SavedModule(saved_combine, saved_block, saved_norm)

    def wrong_backward(self, dh, saved, loss_weight):
        d_embedding, d_hidden, *d_parameters = mtp_combine.backward(self.norm.backward(dh, saved.norm), saved.combine)
        for parameter, gradient in zip((self.enorm, self.hnorm, self.eh_proj), d_parameters, strict=True):
            parameter.grad += gradient
        return d_embedding, d_hidden

    replace(MTPModule, forward=wrong_forward, backward=wrong_backward)


def parallel_mtp_heads(replace: Replace) -> None:
    """Every depth reads the main model's state instead of the depth before it: no chain. (Its gradient still goes there.)"""
    right = DeepSeekV3.deeper

    def wrong(self, depth, tokens, hidden, packing=None):
        if depth == 1:
            self.state_for_all_heads = hidden
        return right(self, depth, tokens, self.state_for_all_heads, packing)

    replace(DeepSeekV3, deeper=wrong)


def mtp_shown_its_target(replace: Replace) -> None:
    """Depth k is shown token i + k + 1, which it has to predict (the last position, which has none, is shown another)."""
    right = DeepSeekV3.deeper

    def wrong(self, depth, tokens, hidden, packing=None):
        return right(self, depth, np.roll(tokens, -1, axis=1), hidden, packing)

    replace(DeepSeekV3, deeper=wrong)


# Resuming and generating.


def cache_offset_forgotten(replace: Replace) -> None:
    """The causal mask of a chunk starts at the first key instead of where the chunk stands: right for the first chunk only."""
    right = attention.forward

    def wrong(q, k, v, scale, starts=None):
        chunk = q.shape[1]
        return right(q, k[:, :chunk], v[:, :chunk], scale, starts)

    replace(attention, forward=wrong)


def resumed_from_the_beginning_of_the_data(replace: Replace) -> None:
    """A resumed run begins its epoch again: it reads the same text twice, and is not the run that was interrupted."""
    right = Batches.restore

    def wrong(self, state):
        right(self, state)
        self.position = 0

    replace(Batches, restore=wrong)


def resumed_without_the_generator(replace: Replace) -> None:
    """The random generator is not put back: to the end of the epoch all is right, then another order of the text follows."""
    right = Batches.restore

    def wrong(self, state):
        before = self.rng.bit_generator.state
        right(self, state)
        self.rng.bit_generator.state = before

    replace(Batches, restore=wrong)


def resumed_without_the_routing_bias(replace: Replace) -> None:
    """The routing biases, which are no parameters, are left at zero when a checkpoint is read: the balance is lost."""
    right = model_folder.assemble

    def wrong(source, name, *arguments, **named):
        if not name.endswith("e_score_correction_bias"):
            right(source, name, *arguments, **named)

    replace(model_folder, assemble=wrong)


def speculation_by_a_ratio_heuristic(replace: Replace) -> None:
    """A guess stands where the model likes it at least half as well as the draft did, with no chance in it."""
    replace(speculative, accepts=lambda probability, rng: probability >= 0.5)


def mla_that_caches_full_keys_and_values(replace: Replace) -> None:
    """The cache of MLA holds the keys and values of every head: nothing is saved."""
    replace(LatentCache, shapes=staticmethod(FullCache.shapes))


MISTAKES: list[Mistake] = [
    gates_from_biased_scores, softmax_gate, forbidden_groups_set_to_zero, bias_moved_the_wrong_way,
    bias_updated_in_evaluation, bias_updated_in_every_backward_pass, balance_loss_from_detached_scores,
    residual_inside_the_moe_layer, rope_key_per_head, rope_key_from_the_latent, rope_key_gradient_of_one_head,
    rope_in_the_other_layout, linear_interpolation_as_yarn, yarn_with_a_reversed_ramp, yarn_without_mscale,
    mtp_head_without_the_block, parallel_mtp_heads, mtp_shown_its_target, cache_offset_forgotten,
    resumed_from_the_beginning_of_the_data, resumed_without_the_generator, resumed_without_the_routing_bias,
]  # fmt: skip
"""Of building, training and resuming a model."""

IN_GENERATION: list[Mistake] = [speculation_by_a_ratio_heuristic, mla_that_caches_full_keys_and_values]
"""Of what is met after training only, where gradients and losses have nothing to say."""
