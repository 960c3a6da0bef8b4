"""Do attention logits grow under Muon, does QK-Clip hold them, and are rotary queries what grows?

Kimi-K2's report: with Muon logits of some heads pass 1,000 where AdamW's stay small, and QK-Clip (threshold 100) keeps them
there at no loss. Here models are small and runs short, so what is asked is the direction. Besides the largest logit of the last
steps, each arm tells where it comes from, as a mean over layers and heads:

    rms W^QR, rms W^UQ      of the weights that make rotary and content queries; both begin at the same size
    rotary share            of the variance of logits over the keys a query sees: Var(q^R · k^R) / Var(q · k)
"""

import numpy as np

from minids.lab.studies.base import BALANCED, COMMON, configs
from minids.lab.studies.compare import above, below, difference
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves, text, training_further, validate, validation_batches
from minids.layers.mla import MLA
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.training.batches import Batches
from minids.training.optimizer import optimizer
from minids.training.qk_clip import QKClip, attentions

ADAMW, MUON, CLIPPED = "adamw", "muon", "muon, clipped"
THRESHOLD = 10.0
_MUON = {"optimizer": "muon", "learning_rate": 0.015}
ARMS = {ADAMW: {}, MUON: _MUON, CLIPPED: _MUON | {"qk_clip": THRESHOLD}}
LAST = 20  # steps whose largest logit counts


def run(settings: dict, job: Job) -> Outcome:
    model_config, train_config = configs(settings, job)
    corpus, curves = text(job.data), Curves(job.steps)
    model = DeepSeekV3(model_config, np.random.default_rng([job.seed, 0]))
    batches = Batches(
        corpus.training, train_config.batch_size, train_config.context_length, np.random.default_rng([job.seed, 1])
    )
    watch, seen = QKClip([model], np.inf), []  # looks, and leaves all as it is
    steps = training_further(model, train_config, batches, optimizer)
    for step in range(1, job.steps + 1):
        if train_config.qk_clip:
            _, losses, _ = next(steps)
            with watch.recording():
                model.losses(*batches.kept[-1][:2])  # after the clip
        else:
            with watch.recording():
                _, losses, _ = next(steps)
        seen.append(watch.seen.max())
        curves.add(step, loss=losses.main, largest_logit=float(seen[-1]))
        job.tell(1)
    numbers = {"loss": validate(model, corpus, train_config).mean_loss, "largest_logit": float(np.max(seen[-LAST:]))}
    tokens = np.concatenate([batch[0][0] for batch in validation_batches(corpus, train_config).values()])
    return Outcome(numbers | sources(model, tokens), curves.values)


def sources(model: DeepSeekV3, tokens: Array) -> dict[str, float]:
    """Where the logits come from, on tokens (S, T)."""
    layers = attentions(model)
    shares: list[Array] = []

    def look(layer: MLA):
        return lambda q, k: shares.append(rotary_share(q, k, layer.d_nope))

    try:
        for layer in layers:
            layer.on_queries_keys = look(layer)
        model.logits(tokens)
    finally:
        for layer in layers:
            layer.on_queries_keys = None
    return {
        "rms W^QR": _rms([_queries(layer)[:, layer.d_nope :] for layer in layers]),
        "rms W^UQ": _rms([_queries(layer)[:, : layer.d_nope] for layer in layers]),
        "rotary_share": float(np.mean(shares)),
    }


def rotary_share(q: Array, k: Array, d_nope: int) -> Array:
    """q, k (S, T, H, d_nope + d_r) → of the variance of logits over the keys that the last query sees, (S, H)."""

    def variance(at: slice) -> Array:
        return np.einsum("shd,sjhd->shj", q[:, -1, :, at], k[..., at]).var(axis=-1)

    return variance(slice(d_nope, None)) / variance(slice(None))


def _queries(layer: MLA) -> Array:
    """(H, d_nope + d_r, in): the weights that make queries."""
    up = layer.q_b_proj if layer.compresses_queries else layer.q_proj
    return up.weight.value.reshape(layer.heads, layer.d_nope + layer.d_rope, -1)


def _rms(weights: list[Array]) -> float:
    return float(np.mean([np.sqrt(np.mean(np.square(w, dtype=np.float64))) for w in weights]))


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    logit, loss = ({name: arm[number] for name, arm in arms.items()} for number in ("largest_logit", "loss"))

    def grown(arm: str) -> Summary:
        values = tuple(r / c for r, c in zip(arms[arm]["rms W^QR"].values, arms[arm]["rms W^UQ"].values, strict=True))
        return Summary(float(np.mean(values)), difference(values).spread, values)

    held = logit[CLIPPED].mean <= 1.1 * THRESHOLD
    share = {name: arm["rotary_share"] for name, arm in arms.items()}
    inflates = "Muon makes the rotary queries' weights larger beside the content's than AdamW does"
    return [
        above("logits grow larger under Muon than under AdamW", logit[MUON], logit[ADAMW]),
        Finding(f"QK-Clip holds them at about {THRESHOLD:g}", held, f"{logit[CLIPPED]}, without {logit[MUON]}"),
        below("the loss with QK-Clip is not above that without", loss[CLIPPED], loss[MUON]),
        above(inflates, grown(MUON), grown(ADAMW), "W^QR / W^UQ "),
        above("the rotary share of the logits' spread is larger under Muon", share[MUON], share[ADAMW]),
    ]


STUDY = Study(
    question="do attention logits grow under Muon, and does QK-Clip hold them at no loss?",
    arms={name: {"model": BALANCED, "train": train} for name, train in ARMS.items()},
    run=run,
    shown=("loss", "largest_logit", "rms W^QR", "rms W^UQ", "rotary_share"),
    common=COMMON,
    findings=findings,
)
