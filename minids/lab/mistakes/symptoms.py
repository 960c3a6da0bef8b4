"""What each mistake looks like: one measurement, made on the right code and with the mistake in.

A measurement returns (where, value), two arrays of the same length, or one number. ``SYMPTOMS`` says for every mistake which it
is, and how it is drawn.
"""

import functools
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minids.backend import use_backend
from minids.checkpoint.model_folder import load, save
from minids.config import ModelConfig
from minids.inference.cache import LatentCache
from minids.inference.decoder import Decoder
from minids.inference.generate import Ending
from minids.inference.speculative import Draft, judge
from minids.lab import mistakes
from minids.lab.mistakes import Mistake, fp8, made, policy
from minids.lab.mistakes.stamp import STAMP, build, text, train
from minids.ops import (
    balance_loss,
    bias_update,
    float8,
    fp8_accumulation,
    fp8_linear,
    policy_loss,
    quantise,
    rope,
    router,
    yarn,
)  # fmt: skip
from minids.training.batches import Batches, TokenStream
from minids.training.metrics import max_violation
from minids.training.process_group import ProcessGroup
from minids.training.reward_model import RewardModel

Array = np.ndarray
Measured = tuple[Array, Array] | float

V3 = ModelConfig.preset("deepseek-v3")
SMALL = STAMP.replace(precision="fp8", fp8_tile=4, num_nextn_predict_layers=0)
"""The stamp in FP8."""


class Symptom(NamedTuple):
    measure: Callable[[], Measured]
    value: str
    """What is measured, with its unit."""
    where: str = ""
    """Over what; "" where it is one number."""
    kind: str = "line"
    """"line", "points" or "bars"."""
    log: str = ""
    """Axes that are logarithmic: "", "x", "y" or "xy"."""


def right_and_wrong(mistake: Mistake) -> tuple[Measured, Measured]:
    """The symptom's measurement on the right code, and with the mistake in."""
    measure = SYMPTOMS[mistake].measure
    with use_backend("numpy"):
        right = measure()
    with made(mistake):
        return right, measure()


# Room one: the router.


def gate_of_the_favourite() -> Measured:
    """Gate of the expert with the largest score, while its bias is raised."""
    logits = np.random.default_rng(0).normal(0, 1, (1, 8))  # (N, E): one token, eight experts
    raised = np.linspace(0, 0.6, 25)
    gates = []
    for b in raised:
        bias = np.zeros(8)
        bias[logits.argmax()] = b
        gates.append(router.forward(logits, bias, 3, scale=2.5)[0].gates[0, 0])
    return raised, np.array(gates)


def score_of_a_bystander() -> Measured:
    """Score of expert 0 while another expert's logit grows."""
    logits = np.random.default_rng(0).normal(0, 1, (1, 8))
    pushes = np.linspace(0, 4, 25)
    scores = []
    for push in pushes:
        pushed = logits.copy()
        pushed[0, 5] += push
        scores.append(router.forward(pushed, None, 3)[0].scores[0, 0])
    return pushes, np.array(scores)


def share_of_forbidden() -> Measured:
    """Share of choices outside the two allowed groups, while all biases are lowered."""
    scores = 1 / (1 + np.exp(-np.random.default_rng(1).normal(0, 1, (400, 16))))
    levels = np.linspace(0, 1, 25)
    shares = []
    for level in levels:
        biased = scores - level
        chosen = router.choose(biased, 4, n_group=4, topk_group=2)
        grouped = biased.reshape(400, 4, 4)
        kept = np.argsort(-np.sort(grouped, axis=-1)[..., -2:].sum(-1), axis=-1, kind="stable")[:, :2]
        shares.append(100 * np.mean(~(chosen[..., None] // 4 == kept[:, None, :]).any(-1)))
    return levels, np.array(shares)


def size_through_the_blocks() -> Measured:
    """rms of the residual stream after each block of a deep, untrained model."""
    deep = STAMP.replace(num_hidden_layers=10, initializer_range=0.05, num_nextn_predict_layers=0)
    model, found = build(deep, lively=False), []
    x = model.embed_tokens.forward(text(deep, 4, 16)[0])[0]
    for block in model.blocks:
        x, _ = block.forward(x, model.rotary(16))
        found.append(np.sqrt(np.mean(x * x)))
    return np.arange(1, 11), np.array(found)


# Room two: balance.


def balance_over_time() -> Measured:
    """MaxVio, the busiest expert's excess over the mean, while the bias works on an uneven router."""
    source, bias, found = np.random.default_rng(3), np.zeros(16, np.float32), []
    favour = np.linspace(-1, 1, 16)  # (E,): some experts are simply liked better
    for _ in range(100):
        routing, _ = router.forward(source.normal(0, 1, (256, 16)) + favour, bias, 4)
        counts = np.bincount(routing.chosen.reshape(-1), minlength=16)
        found.append(max_violation(counts[None])[0])
        bias = bias_update.updated(bias, counts, 0.01)
    return np.arange(100), np.array(found)


def bias_after(what: str) -> Measured:
    """Largest routing bias after calling a method of the model again and again, with no step."""
    model, (tokens, targets) = build(lively=False), text()
    found = []
    for _ in range(40):
        getattr(model, what)(tokens, targets)
        found.append(max(np.abs(b).max() for b in model.parameters.buffers.values()))
    return np.arange(1, 41), np.array(found)


def push_on_each_expert() -> Measured:
    """Gradient of the balance loss by the scores, mean over tokens: positive pushes down."""
    uneven = np.random.default_rng(4).normal(0, 1, (32, 8)) + np.linspace(1, -1, 8)  # (N, E)
    scores = 1 / (1 + np.exp(-uneven))
    chosen = router.choose(scores, 2)
    return np.arange(8), balance_loss.backward(1.0, balance_loss.forward(scores, chosen, 32)[1]).mean(axis=0)


# Room three: latent attention.


def numbers_in_a_cache() -> Measured:
    """What the cache of a latent attention holds, per token and layer, at V3's sizes: shapes only, nothing is made."""
    return float(sum(np.prod(shape) for shape in LatentCache.shapes(V3)))


def numbers_with_rotary_keys() -> Measured:
    """Latent and rotary keys per token and layer, at V3's sizes: one key if the stamp's heads share one, else one for each."""
    model = build()
    keys = model.blocks[0].attention.latent(np.ones((1, 1, STAMP.hidden_size)), model.rotary(1))[1]  # (B, T, 1 or H, d_r)
    return float(V3.kv_lora_rank + (1 if keys.shape[2] == 1 else V3.num_attention_heads) * V3.qk_rope_head_dim)


def gradient_of_rotary_rows() -> Measured:
    """Gradient of the rows of kv_a_proj that make the rotary key, first block; over the right one."""
    gradients = build().loss_and_grads(*text())[1]
    return _right_rotary_rows(), gradients[_ROWS][STAMP.kv_lora_rank :].ravel()


_ROWS = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"


@functools.cache
def _right_rotary_rows() -> Array:
    return build().loss_and_grads(*text())[1][_ROWS][STAMP.kv_lora_rank :].ravel()


# Room four: positions.


def logit_by_distance() -> Measured:
    """q · k when the key stands some tokens before the query."""
    distance = np.arange(0, 60)
    q, k = np.random.default_rng(6).normal(size=(2, 1, 1, 1, 64))
    cos, sin = yarn.rotation_table(yarn.plain_frequencies(64, 10000.0), distance)
    turned = rope.forward(np.repeat(q, len(distance), axis=1), cos, sin)[0]
    return distance, turned[0, :, 0] @ k[0, 0, 0]


def v3_frequencies() -> Measured:
    """Of V3 with YaRN, radians per token, by pair."""
    return np.arange(32), yarn.yarn_frequencies(64, 10000.0, 40.0, 4096, 32.0, 1.0)


def keys_that_count() -> Measured:
    """Effective number of keys a query attends to: e to the entropy of its softmax."""
    lengths, found = np.array([128, 512, 2048, 8192]), []
    scale = 192**-0.5 * yarn.mscale(40.0, 1.0) ** 2
    for length in lengths:
        z = np.random.default_rng(7).normal(0, 1, (200, length)) * 192**0.5 * scale
        p = np.exp(z - z.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        found.append(np.exp(-(p * np.log(p)).sum(-1)).mean())
    return lengths, np.array(found)


# Room five: multi-token prediction.


def reach_of_the_first_block(depth: int) -> Measured:
    """How much the logits of an MTP depth move when the block of module 1 is disturbed."""
    model, tokens = build(), text()[0]
    before = model.mtp_logits(tokens)[depth - 1]
    model.parameters[f"model.layers.{STAMP.num_hidden_layers}.self_attn.o_proj.weight"].value[...] += 0.3
    return float(np.abs(model.mtp_logits(tokens)[depth - 1] - before).max())


def mtp_loss_on_noise() -> Measured:
    """MTP loss of every step, each on fresh random text, which nobody can predict."""
    noise = STAMP.replace(aux_loss_alpha=0.0, num_nextn_predict_layers=1)
    model = build(noise, lively=False, dtype=np.float32)
    history = train(model, *text(noise, 16, 12), 150, 0.01, np.random.default_rng(8))
    return np.arange(150), np.array([losses.mtp[0] for losses in history])


# Room six: serving and resuming.


def error_by_position() -> Measured:
    """Largest difference of logits from the full pass, by position, when text is read in chunks of 6, 5 and 5."""
    model, tokens = build(), text(size=2, length=16)[0]
    decoder = Decoder(model, batch=2)
    parts = [model.head.forward(decoder.read(piece))[0] for piece in np.split(tokens, [6, 11], axis=1)]
    return np.arange(16), np.abs(np.concatenate(parts, axis=1) - _full_logits()).max(axis=(0, 2)) + 1e-17


@functools.cache
def _full_logits() -> Array:
    """(B, T, V), by the right code: ``error_by_position`` is measured on it first."""
    return build().logits(text(size=2, length=16)[0])


def windows_read() -> Measured:
    """First token of every window of a run that is stopped after 5 steps and continued for 15: two epochs."""
    stream = TokenStream(np.arange(400, dtype=np.uint16), np.array([0, 100, 200, 300, 400]))
    batches = Batches(stream, 1, 40, np.random.default_rng(0))
    firsts = [int(batches.next()[0][0, 0]) for _ in range(5)]
    again = Batches(stream, 1, 40, np.random.default_rng(99))
    again.restore(batches.state())
    return np.arange(20), np.array(firsts + [int(again.next()[0][0, 0]) for _ in range(15)])


def loads_after_loading() -> Measured:
    """Load of each expert, over the mean, after saving and loading a balanced model; sorted."""
    config = STAMP.replace(n_routed_experts=16, num_experts_per_tok=4, num_nextn_predict_layers=0)
    model = build(config, dtype=np.float32)
    tokens, targets = text(config, 16, 32)
    for _ in range(150):  # let the bias do its work; nothing else is trained
        model.update_biases(model.losses(tokens, targets).counts, 0.02)
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        counts = load(folder).losses(tokens, targets).counts[0]
    return np.arange(16), np.sort(counts)[::-1] / counts.mean()


WANTED = np.array([0.30, 0.25, 0.20, 0.15, 0.10])
"""What a model wants to say, (V,), in the room of guesses."""
GUESSED = np.array([0.15, 0.45, 0.10, 0.10, 0.20])
"""And what its draft proposes."""


def spoken() -> Measured:
    """Distribution of what the judge lets through when 20,000 drafts come from ``GUESSED``."""
    source, said = np.random.default_rng(9), np.zeros(5)
    for guess in source.choice(5, 20_000, p=GUESSED):
        stood, after = judge(Draft([int(guess)], [GUESSED]), np.stack([WANTED, WANTED]), source)
        said[guess if stood else after] += 1
    return np.arange(5), said / 20_000


# Room seven: learning from rewards.


def divergence() -> Measured:
    """D of an answer, by how much likelier the reference says it."""
    log_q = np.linspace(-2, 2, 41)
    return log_q, policy_loss.k3(log_q)[0]


def push_on_a_bad_answer() -> Measured:
    """Derivative of the loss by ln ρ where the advantage is −1: positive makes the answer rarer."""
    rho = np.linspace(0.5, 1.5, 101)
    return rho, -policy_loss.surrogate(rho, np.full_like(rho, -1.0), 0.2)[1]


def advantages_of_two_questions() -> Measured:
    """Of four answers each: one question is easy, three are right; one is hard, one is right."""
    rewards, groups = np.array([1.0, 1, 1, 0, 1, 0, 0, 0]), np.repeat([0, 1], 4)
    return np.arange(1, 9), policy_loss.advantages(rewards, groups)


def learning_to_answer() -> Measured:
    """Probability of the one answer that is rewarded, of eight answers of one token, while the loss is followed downhill."""
    logits, answers, found = np.zeros(8), np.arange(8), []  # (V,), (A,)
    advantage = policy_loss.advantages((answers == 3).astype(float), np.zeros(8, int))
    for _ in range(40):
        rows = np.tile(logits, (8, 1))  # (A, V): one prompt before all answers
        now = policy_loss.log_probabilities(rows, answers)
        found.append(float(np.exp(now[3])))
        saved = policy_loss.forward(rows, answers, answers, advantage, now)[1]
        logits = logits - policy_loss.backward(1.0, saved).sum(axis=0)
    return np.arange(40), np.array(found)


def bias_after_rollouts() -> Measured:
    """Largest routing bias after answers were drawn again and again, with no step."""
    model, source, found = build(lively=False), np.random.default_rng(10), []
    for _ in range(20):
        ProcessGroup().sampled(model, [[1, 2, 3]], 2, 4, 1.0, Ending(frozenset(), (), None), source)
        found.append(max(np.abs(b).max() for b in model.parameters.buffers.values()))
    return np.arange(1, 21), np.array(found)


def worth_beside_another() -> Measured:
    """Reward of one answer of six tokens, by the length of the answer that is judged beside it."""
    judge_of_answers = RewardModel.copy_of(build(dtype=np.float32))
    judge_of_answers.model.head.weight.value[...] = np.random.default_rng(11).normal(size=STAMP.hidden_size)
    mine, longest = text(size=1, length=6)[0][0], text(size=1, length=30, seed=3)[0][0]
    lengths = np.arange(2, 31, 2)
    return lengths, np.array([judge_of_answers.of_tokens([mine, longest[:length]])[0] for length in lengths])


# The FP8 wing.


def halves() -> Measured:
    """Whole numbers from 16, where E4M3 has every second one: what each becomes, minus what it was."""
    y = np.arange(16.0, 34.0)
    return y, float8.rounded(y) - y


def large() -> Measured:
    """Numbers around the largest, 448."""
    y = np.linspace(300, 620, 120)
    return y, float8.rounded(y)


def tiny() -> Measured:
    """Numbers around the smallest normal one, 2⁻⁶."""
    y = np.geomspace(2.0**-11, 2.0**-4, 200)
    return y, float8.rounded(y)


def outlier() -> Measured:
    """Error of all other numbers of a matrix when one number grows, in per cent."""
    sizes = 10.0 ** np.arange(0, 7)
    x, off = np.random.default_rng(1).normal(size=(8, 256)).astype(np.float32), []
    for size in sizes:
        x[0, 0] = size
        off.append(100 * np.abs(quantise.rounded(x, (1, 32)) - x)[1:].mean() / np.abs(x[1:]).mean())
    return sizes, np.array(off)


def largest_of_a_tile() -> Measured:
    """A tile's largest number after quantisation with a power-of-two scale, over what it was."""
    sizes = np.geomspace(1, 16, 200)
    tiles = np.zeros((len(sizes), 4), np.float32)
    tiles[:, 0] = sizes
    return sizes, quantise.rounded(tiles, (1, 4), power_of_two=True)[:, 0] / sizes


@functools.cache
def _operands() -> tuple[Array, Array, Array]:
    """x (N, in), w (out, in), dy (N, out); tokens differ in size, as they do in a network."""
    source = np.random.default_rng(2)
    loud = np.exp(source.normal(size=(256, 1)))  # (N, 1)
    x = (loud * source.normal(size=(256, 128))).astype(np.float32)
    w = (0.05 * source.normal(size=(64, 128))).astype(np.float32)
    return x, w, (1e-3 * source.normal(size=(256, 64))).astype(np.float32)


def weight_gradient() -> Measured:
    """Some entries of dW in FP8 against the exact ones."""
    x, w, dy = _operands()
    _, d_weight, _ = fp8_linear.backward(dy, fp8_linear.forward(x, w)[1])
    return (dy.T @ x).ravel()[::90], d_weight.ravel()[::90]


def long_sums() -> Measured:
    """Largest relative error of products of positive numbers, by the length of the sum, in per cent."""
    lengths, off = 2 ** np.arange(7, 13), []
    for K in lengths:
        a, b = np.random.default_rng(3).random((2, 8, K)).astype(np.float32)
        truth = a.astype(np.float64) @ b.T.astype(np.float64)
        off.append(100 * np.abs(fp8_accumulation.matmul(a, b.T, fp8_accumulation.PROMOTED) / truth - 1).max())
    return lengths, np.array(off)


def after_attention() -> Measured:
    """Errors of the input of the linear behind attention, sorted, in per cent."""
    recipe, x = fp8_linear.FINE.after_attention(), _operands()[0]
    left = quantise.rounded(x, recipe.row, recipe.inputs, recipe.round_inputs)
    off = 100 * np.sort(np.abs(left / x - 1).ravel())[::64]
    return np.linspace(0, 100, len(off)), off


def ties() -> Measured:
    """How often the better of two experts loses, when its logit is larger by a gap, in per cent."""
    gaps = np.geomspace(1e-4, 1, 9)
    gate, lost = build(SMALL.replace(fp8_tile=16), dtype=np.float32).moe_layers[0].gate, []
    states = np.random.default_rng(4).normal(size=(200, 12)).astype(np.float32)
    weight, direction = gate.weight.value, states / (states**2).sum(axis=1, keepdims=True)
    for gap in gaps:
        weight[1] = weight[0] = weight[2]
        wins = 0
        for state, step in zip(states, direction, strict=True):
            weight[1] = weight[0] + gap * step  # logit of expert 1 = that of expert 0 + gap
            logits = gate.forward(state[None])[0]
            wins += logits[0, 1] > logits[0, 0]
        lost.append(100 - wins / 2)
    return gaps, np.array(lost)


def small_updates() -> Measured:
    """A weight that is made larger by a thousandth of its first value, again and again; over its first value."""
    layer = build(SMALL, dtype=np.float32).blocks[0].attention.q_a_proj
    weight, grown, state = layer.weight.value, [1.0], np.ones((1, 12), np.float32)
    start = weight[0, 0]
    for _ in range(60):
        layer.forward(state)
        weight[0, 0] += start / 1000
        grown.append(weight[0, 0] / start)
    return np.arange(61), np.array(grown)


_PAIR, _CALLS = "pair of coordinates", "calls without an optimizer step"
SYMPTOMS: dict[Mistake, Symptom] = {
    mistakes.gates_from_biased_scores: Symptom(gate_of_the_favourite, "its gate", "bias of the best expert"),
    mistakes.softmax_gate: Symptom(score_of_a_bystander, "score of expert 0", "what is added to another expert's logit"),
    mistakes.forbidden_groups_set_to_zero: Symptom(share_of_forbidden, "forbidden choices, %", "what is taken off all biases"),
    mistakes.residual_inside_the_moe_layer: Symptom(size_through_the_blocks, "rms of the stream", "block", "line", "y"),
    mistakes.bias_moved_the_wrong_way: Symptom(balance_over_time, "MaxVio", "step"),
    mistakes.bias_updated_in_evaluation: Symptom(functools.partial(bias_after, "losses"), "largest |bias|", _CALLS),
    mistakes.bias_updated_in_every_backward_pass: Symptom(
        functools.partial(bias_after, "forward_backward"), "largest |bias|", _CALLS
    ),
    mistakes.balance_loss_from_detached_scores: Symptom(
        push_on_each_expert, "gradient on its score", "expert, the most chosen first", "bars"
    ),
    mistakes.rope_key_per_head: Symptom(numbers_with_rotary_keys, "numbers cached per token and layer, V3's sizes"),
    mistakes.mla_that_caches_full_keys_and_values: Symptom(
        numbers_in_a_cache, "numbers cached per token and layer, V3's sizes"
    ),
    mistakes.rope_key_from_the_latent: Symptom(
        gradient_of_rotary_rows, "with the mistake", "gradient of the key's rows", "points"
    ),
    mistakes.rope_key_gradient_of_one_head: Symptom(
        gradient_of_rotary_rows, "with the mistake", "gradient of the key's rows", "points"
    ),
    mistakes.rope_in_the_other_layout: Symptom(logit_by_distance, "query · key", "tokens between them"),
    mistakes.linear_interpolation_as_yarn: Symptom(v3_frequencies, "radians per token", _PAIR, "line", "y"),
    mistakes.yarn_with_a_reversed_ramp: Symptom(v3_frequencies, "radians per token", _PAIR, "line", "y"),
    mistakes.yarn_without_mscale: Symptom(keys_that_count, "keys that count", "keys in the context", "line", "xy"),
    mistakes.mtp_head_without_the_block: Symptom(
        functools.partial(reach_of_the_first_block, 1), "how far depth 1's logits move when module 1's block is disturbed"
    ),
    mistakes.parallel_mtp_heads: Symptom(
        functools.partial(reach_of_the_first_block, 2), "how far depth 2's logits move when module 1's block is disturbed"
    ),
    mistakes.mtp_shown_its_target: Symptom(mtp_loss_on_noise, "MTP loss, nats", "step, each on fresh random text"),
    mistakes.cache_offset_forgotten: Symptom(
        error_by_position, "error of the logits", "position, read in chunks of 6, 5, 5", "points", "y"
    ),
    mistakes.resumed_from_the_beginning_of_the_data: Symptom(
        windows_read, "window begins at", "step: resumed after 5, epochs of 10", "points"
    ),
    mistakes.resumed_without_the_generator: Symptom(
        windows_read, "window begins at", "step: resumed after 5, epochs of 10", "points"
    ),
    mistakes.resumed_without_the_routing_bias: Symptom(loads_after_loading, "load / mean", "experts, by load", "bars"),
    mistakes.speculation_by_a_ratio_heuristic: Symptom(spoken, "share written", "token", "bars"),
    policy.divergence_as_a_difference_of_logs: Symptom(divergence, "D", "ln (reference / policy)"),
    policy.larger_term_in_the_clip: Symptom(push_on_a_bad_answer, "push down", "ρ of an answer with advantage −1"),
    policy.group_numbers_lost: Symptom(
        advantages_of_two_questions, "advantage", "answers: 1 to 4 to an easy question, 5 to 8 to a hard one", "bars"
    ),
    policy.old_log_probabilities_with_gradient: Symptom(learning_to_answer, "p(right answer)", "step"),
    policy.balancing_bias_moved_by_rollouts: Symptom(
        bias_after_rollouts, "largest |bias|", "rollouts without an optimizer step"
    ),
    policy.reward_read_behind_the_padding: Symptom(
        worth_beside_another, "its reward", "tokens of the answer beside it", "points"
    ),
    fp8.halves_rounded_away_from_zero: Symptom(halves, "rounding error", "number", "points"),
    fp8.overflow_instead_of_saturation: Symptom(large, "becomes", "number; where the dashed line ends, NaN"),
    fp8.subnormals_flushed_to_zero: Symptom(tiny, "becomes", "number", "line", "xy"),
    fp8.scale_of_the_tensor_in_every_tile: Symptom(outlier, "error of others, %", "one outlier", "line", "x"),
    fp8.power_of_two_scales_rounded_down: Symptom(
        largest_of_a_tile, "what is left of it", "largest number of a tile", "line", "x"
    ),
    fp8.scales_forgotten_in_the_weight_gradient: Symptom(weight_gradient, "dW", "exact dW", "points", "sym"),
    fp8.weight_gradient_in_the_tiles_of_the_forward_pass: Symptom(weight_gradient, "dW", "exact dW", "points"),
    fp8.promotion_forgotten: Symptom(long_sums, "largest error, %", "products in a sum", "line", "x"),
    fp8.attention_output_in_e4m3: Symptom(after_attention, "relative error, %", "share of the numbers, %"),
    fp8.router_in_fp8: Symptom(ties, "how often it loses, %", "lead of the better expert's logit", "line", "x"),
    fp8.master_weights_in_fp8: Symptom(small_updates, "weight / first value", "updates of a thousandth"),
}
