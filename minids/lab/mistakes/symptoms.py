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
from minids.inference.speculative import Draft, judge
from minids.lab import mistakes
from minids.lab.mistakes import Mistake, fp8, made, policy
from minids.lab.mistakes import fp8_symptoms as for_fp8
from minids.lab.mistakes import policy_symptoms as for_policy
from minids.lab.mistakes.stamp import STAMP, Array, Measured, build, text, train
from minids.ops import balance_loss, bias_update, rope, router, yarn
from minids.training.batches import Batches, TokenStream
from minids.training.metrics import max_violation

V3 = ModelConfig.preset("deepseek-v3")


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
    policy.divergence_as_a_difference_of_logs: Symptom(for_policy.divergence, "D", "ln (reference / policy)"),
    policy.larger_term_in_the_clip: Symptom(for_policy.push_on_a_bad_answer, "push down", "ρ of an answer with advantage −1"),
    policy.group_numbers_lost: Symptom(
        for_policy.advantages_of_two_questions,
        "advantage",
        "answers: 1 to 4 to an easy question, 5 to 8 to a hard one",
        "bars",
    ),
    policy.old_log_probabilities_with_gradient: Symptom(for_policy.learning_to_answer, "p(right answer)", "step"),
    policy.balancing_bias_moved_by_rollouts: Symptom(
        for_policy.bias_after_rollouts, "largest |bias|", "rollouts without an optimizer step"
    ),
    policy.reward_read_behind_the_padding: Symptom(
        for_policy.worth_beside_another, "its reward", "tokens of the answer beside it", "points"
    ),
    fp8.halves_rounded_away_from_zero: Symptom(for_fp8.halves, "rounding error", "number", "points"),
    fp8.overflow_instead_of_saturation: Symptom(for_fp8.large, "becomes", "number; where the dashed line ends, NaN"),
    fp8.subnormals_flushed_to_zero: Symptom(for_fp8.tiny, "becomes", "number", "line", "xy"),
    fp8.scale_of_the_tensor_in_every_tile: Symptom(for_fp8.outlier, "error of others, %", "one outlier", "line", "x"),
    fp8.power_of_two_scales_rounded_down: Symptom(
        for_fp8.largest_of_a_tile, "what is left of it", "largest number of a tile", "line", "x"
    ),
    fp8.scales_forgotten_in_the_weight_gradient: Symptom(for_fp8.weight_gradient, "dW", "exact dW", "points", "sym"),
    fp8.weight_gradient_in_the_tiles_of_the_forward_pass: Symptom(for_fp8.weight_gradient, "dW", "exact dW", "points"),
    fp8.promotion_forgotten: Symptom(for_fp8.long_sums, "largest error, %", "products in a sum", "line", "x"),
    fp8.attention_output_in_e4m3: Symptom(for_fp8.after_attention, "relative error, %", "share of the numbers, %"),
    fp8.router_in_fp8: Symptom(for_fp8.ties, "how often it loses, %", "lead of the better expert's logit", "line", "x"),
    fp8.master_weights_in_fp8: Symptom(for_fp8.small_updates, "weight / first value", "updates of a thousandth"),
}
