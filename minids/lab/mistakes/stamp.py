"""A whole DeepSeek-V3 that fits on a stamp, on which a mistake shows in no time, and the checks that everybody makes.

A dense block, a block with 8 experts in 4 groups, two MTP modules, YaRN, all losses on; sizes differ wherever they may.
"""

import numpy as np

from minids import check, pico
from minids.config import ModelConfig, Yarn
from minids.lab.mistakes import Mistake, made
from minids.model import DeepSeekV3, Losses, routing_fixed

Array = np.ndarray
Measured = tuple[Array, Array] | float
"""What a symptom's measurement gives: (where, value), or one number."""

STAMP = ModelConfig(
    vocab_size=19, hidden_size=12, num_hidden_layers=2, first_k_dense_replace=1, intermediate_size=10,
    num_attention_heads=4, q_lora_rank=7, kv_lora_rank=5, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=3,
    n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, moe_intermediate_size=6,
    num_nextn_predict_layers=2, mtp_loss_weight=0.7, aux_loss_alpha=0.001, initializer_range=0.3,
    max_position_embeddings=64, bos_token_id=None, eos_token_id=None, rope_theta=10.0,
    rope_scaling=Yarn(
        factor=8.0, original_max_position_embeddings=40, beta_fast=6.0, beta_slow=0.25, mscale=1.2, mscale_all_dim=0.8
    ),
)  # fmt: skip


def build(config: ModelConfig = STAMP, seed: int = 0, dtype=np.float64, lively: bool = True) -> DeepSeekV3:
    """A model; ``lively``: norm gains and routing biases are random, because 1 and 0 hide mistakes."""
    model = DeepSeekV3(config, seed, dtype)
    rng = np.random.default_rng(seed + 1)
    if lively:
        for p in model.parameters:
            if p.init == "ones":
                p.value[...] = rng.uniform(0.5, 1.5, p.shape)
        for bias in model.parameters.buffers.values():
            bias[...] = rng.normal(0, 0.2, bias.shape)
    return model


def text(config: ModelConfig = STAMP, size: int = 3, length: int = 8, seed: int = 2) -> tuple[Array, Array]:
    """Tokens and the tokens that follow them, (B, T) each."""
    whole = np.random.default_rng(seed).integers(0, config.vocab_size, (size, length + 1))
    return whole[:, :-1], whole[:, 1:]


def train(model: DeepSeekV3, tokens: Array, targets: Array, steps=25, rate=0.01, fresh=None) -> list[Losses]:
    """Plain Adam; the losses of all steps. ``fresh``, a generator, draws new random text every time."""
    values, m, v, history = model.parameters.values, 0.0, 0.0, []
    for step in range(1, steps + 1):
        if fresh is not None:
            whole = fresh.integers(0, model.config.vocab_size, (len(tokens), tokens.shape[1] + 1))
            tokens, targets = whole[:, :-1], whole[:, 1:]
        model.parameters.zero_grads()
        history.append(model.forward_backward(tokens, targets))
        g = model.parameters.grads
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        values -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
        model.update_biases(history[-1].counts, model.config.bias_update_speed)
    return history


# What everybody checks, and what careful people do. Each returns whether all looks well.


def shapes_look_right() -> bool:
    """Logits, MTP logits and gradients have the shapes they should, and no NaN."""
    model, (tokens, targets) = build(), text()
    gradients = model.loss_and_grads(tokens, targets)[1]
    return (
        model.logits(tokens).shape == (3, 8, 19)
        and [x.shape for x in model.mtp_logits(tokens)] == [(3, 7, 19), (3, 6, 19)]
        and all(gradients[p.name].shape == p.shape and np.isfinite(gradients[p.name]).all() for p in model.parameters)
    )


def gradients_look_alive() -> bool:
    """Every parameter gets a gradient."""
    return all(g.any() for g in build().loss_and_grads(*text())[1].values())


def loss_falls() -> bool:
    """Every loss falls by a quarter within 25 steps on one batch."""
    history = train(build(lively=False), *text())
    first, last = history[0], history[-1]
    depths = all(b < 0.8 * a for a, b in zip(first.mtp, last.mtp, strict=True))
    return last.main < 0.75 * first.main and depths


def central_differences_agree() -> bool:
    """Along random directions, the choice of experts held still, the gradient is the loss's slope."""
    model, (tokens, targets) = build(), text()
    frozen = model.choices(tokens, targets)
    model.loss_and_grads(tokens, targets)
    start, rng, h = model.parameters.values.copy(), np.random.default_rng(5), 1e-3
    gradient = model.parameters.grads.copy()
    for _ in range(4):
        direction = rng.standard_normal(start.shape)
        direction /= np.sqrt(np.sum(direction**2))
        loss = {}
        for step in (-2, -1, 1, 2):
            model.parameters.values[...] = start + step * h * direction
            with routing_fixed(model, frozen):
                loss[step] = model.losses(tokens, targets).total
        slope = (8 * (loss[1] - loss[-1]) - (loss[2] - loss[-2])) / (12 * h)
        if abs(slope - gradient @ direction) > 1e-6 * np.sqrt(np.mean(gradient**2)):
            return False
    return True


def another_implementation_agrees() -> bool:
    """minids/pico.py, written apart from the package, gives the same logits, at every MTP depth too."""
    model, tokens = build(), text(length=16)[0]
    weights = {p.name: p.value for p in model.parameters} | model.parameters.buffers
    hidden = pico.hidden_states(tokens[:1], weights, STAMP)
    pairs = [(model.logits(tokens[:1]), pico.deepseek_v3(tokens[:1], weights, STAMP))]
    for depth, logits in enumerate(model.mtp_logits(tokens[:1]), start=1):
        pairs.append((logits, pico.mtp_logits(tokens[:1], hidden, weights, STAMP, depth)))
    return all(np.abs(a - b).max() < 1e-9 for a, b in pairs)


CHECKS = {
    "shapes": shapes_look_right,
    "gradients not zero": gradients_look_alive,
    "falling loss": loss_falls,
    "central differences": central_differences_agree,
    "another implementation": another_implementation_agrees,
}


def noticed(exhibits: list[Mistake]) -> Array:
    """Whether each check notices each mistake, (mistakes, checks)."""
    found = np.zeros((len(exhibits), len(CHECKS)), dtype=bool)
    for row, mistake in enumerate(exhibits):
        with made(mistake):
            found[row] = [not run() for run in CHECKS.values()]
    return found


def judged(test, mistake: Mistake) -> check.Report:
    """A report on a learner's test: does it accept the right code and notice the mistake?"""
    when, name = "on the right code", test.__name__
    try:
        accepts = test()
        when = f"with {mistake.__name__} made"
        with made(mistake):
            notices = not test()
    except Exception as error:
        hint = "return False rather than raise." if isinstance(error, AssertionError) else ""
        finding = check.Finding(name, f"raised {type(error).__name__} {when}: {error}", hint)
        return check.Report(name, {name: 1.0}, (finding,), 0.0)
    findings = []
    if not isinstance(accepts, (bool, np.bool_)):
        findings.append(check.Finding(name, f"returned {accepts!r} on the right code; it has to return True or False."))
    elif not accepts:
        findings.append(check.Finding(name, "rejects the right code."))
    elif not notices:
        hint = "would anything you look at change with it?"
        findings.append(check.Finding(name, f"does not notice {mistake.__name__}.", hint))
    return check.Report(name, {name: 0.0}, tuple(findings), 0.0)
