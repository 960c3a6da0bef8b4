"""YaRN at laptop size: a model trained on 128 tokens is read at up to 512, as it is and after a little further training.

DeepSeek-V3 is trained on 4,096 tokens and extended in two phases of 1,000 steps, to 32,768 and to 131,072 (section 4.3), with
the same YaRN constants in both and as many tokens per step; then it finds a needle at every depth of 128,000 tokens (figure
8). Here the phases are twice and four times the length of training.

YaRN (Peng et al. 2023) changes three things about rotary angles, and each arm leaves something out:

    no extension          angles go on beyond what training has seen
    interpolation         every frequency divided by s (Chen et al. 2023): no angle is new, but neighbours stand closer
    YaRN without ramp     that, and sharper logits: the softmax scale times m² = (0.1 ln s + 1)²
    YaRN, step for ramp   frequencies that turn more than once in training kept, the others divided, nothing between; with m²
                          (β_fast = β_slow = 1, as Kimi-K2 has it)
    YaRN without mscale   the ramp, and the softmax scale of training
    YaRN                  both

All arms of a seed begin with the same trained model. Text is measured where it has no facts, by position; retrieval
(``needles.py``) by length of the context and depth of the needle.
"""

import math
from functools import lru_cache

import numpy as np

from minids.config import ModelConfig, TrainConfig, Yarn
from minids.lab.analysis.same_weights import same_weights
from minids.lab.studies.base import BALANCED, MODEL, configs
from minids.lab.studies.compare import below
from minids.lab.studies.needles import KINDS, SAID, VALUES, WithFacts, found, haystacks, plain
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves, text, training_further
from minids.layers.parameters import Array
from minids.layers.positions import Rotary, rotary
from minids.model import DeepSeekV3
from minids.training.batches import Batches, validation_windows
from minids.training.optimizer import optimizer
from minids.training.text import Text

TRAINED, FACTOR = 128, 4
LONGEST = TRAINED * FACTOR
PHASES = (256, 512)  # lengths of further training, one after the other
PHASE_SHARE = 0.05  # steps of a phase, as a share of all steps of a run
EXTENSION_RATE = 0.1  # learning rate of further training, as a share of the peak
BUCKET = 64  # positions over which perplexity is averaged
LENGTHS, DEPTHS = (128, 256, 384, 512), (0.0, 0.25, 0.5, 0.75, 1.0)
HAYSTACKS = 24  # contexts per length and depth
STAGES = ("zero-shot", "tuned")  # read as it is, and after further training at the longer lengths

NONE, INTERPOLATION, NO_RAMP = "no extension", "interpolation", "YaRN without ramp"
STEP, NO_MSCALE, YARN = "YaRN, step for ramp", "YaRN without mscale", "YaRN"
_S = dict(factor=float(FACTOR), original_max_position_embeddings=TRAINED)
ARMS = {
    NONE: {},
    INTERPOLATION: {"divide": FACTOR},
    NO_RAMP: {"divide": FACTOR, "yarn": _S},
    STEP: {"yarn": {**_S, "beta_fast": 1.0, "beta_slow": 1.0}},
    NO_MSCALE: {"yarn": {**_S, "mscale": 0.0, "mscale_all_dim": 0.0}},
    YARN: {"yarn": _S},
}


class Interpolated(DeepSeekV3):
    """Position interpolation: position i is turned as position i / s was in training. YaRN's frequencies have no say."""

    divide = FACTOR

    def rotary(self, length: int) -> Rotary:
        """Angles of positions 0, 1/s, 2/s …"""
        if len(self._rotary.cos) < length:
            self._rotary = rotary(self.config.replace(rope_scaling=None), np.arange(length) / self.divide, self.dtype)
        return self._rotary.first(length)


def extended(trained: DeepSeekV3, settings: dict) -> DeepSeekV3:
    """A copy of a model as an arm reads it: the same weights and routing biases."""
    yarn = Yarn(**settings["yarn"]) if "yarn" in settings else None
    config = trained.config.replace(rope_scaling=yarn, max_position_embeddings=LONGEST)
    return same_weights(trained, config, Interpolated if "divide" in settings else DeepSeekV3)


def run(settings: dict, job: Job) -> Outcome:
    _, train = configs({}, job, COMMON)
    phase = max(1, round(job.steps * PHASE_SHARE))
    before = max(1, job.steps - len(PHASES) * phase)
    trained, losses = _trained(job.seed, before, job.data, job.threads)
    job.tell(before)
    corpus, model = text(job.data), extended(trained, settings)
    numbers, curves, rng = measure(model, corpus, STAGES[0]), Curves(len(PHASES) * phase), np.random.default_rng([job.seed, 3])
    for i, length in enumerate(PHASES):
        sizes = dict(context_length=length, batch_size=max(1, train.tokens_per_step // length), steps=phase)
        flat = dict(learning_rate=train.learning_rate * EXTENSION_RATE, constant_until=1.0, decay_until=1.0, final_from=1.0)
        further = train.replace(**sizes, **flat)
        for step, now, _ in training_further(model, further, _supply(corpus, further, rng), optimizer, job.threads):
            curves.add(i * phase + step, loss=now.main)
            job.tell(1)
    numbers |= measure(model, corpus, STAGES[1])
    return Outcome(numbers, curves.values, {"before": losses})


@lru_cache(maxsize=1)
def _trained(seed: int, steps: int, data: tuple[str, ...], threads: int) -> tuple[DeepSeekV3, dict[str, list[float]]]:
    """The model that all arms of a seed begin with, and its loss on the way. A process makes it once."""
    corpus, curves = text(data), Curves(steps)
    config, train = ModelConfig(**COMMON["model"]), TrainConfig(**COMMON["train"], steps=steps)
    model = DeepSeekV3(config, np.random.default_rng([seed, 0]))
    supply = _supply(corpus, train, np.random.default_rng([seed, 1]))
    for step, losses, _ in training_further(model, train, supply, optimizer, threads):
        curves.add(step, loss=losses.main)
    return model, curves.values


def _supply(corpus: Text, train: TrainConfig, rng: np.random.Generator) -> WithFacts:
    return WithFacts(Batches(corpus.training, train.batch_size, train.context_length, rng), rng)


def measure(model: DeepSeekV3, corpus: Text, stage: str) -> dict[str, float]:
    """Perplexity by position and needles found by length and depth, as the numbers of a run."""
    nats = by_position(model, corpus)
    numbers = {name("ppl", stage, at + BUCKET): math.exp(nats[at : at + BUCKET].mean()) for at in range(0, LONGEST, BUCKET)}
    stream = np.concatenate([held.tokens for held in corpus.held_out.values()])
    for length in LENGTHS:
        cells = []
        for depth in DEPTHS:
            rng = np.random.default_rng([length, round(100 * depth)])  # the same contexts for every arm and seed
            hay = haystacks(stream, rng, HAYSTACKS, length, depth)
            cells.append(float(found(model.logits(hay.tokens), hay.answers).mean()))
            numbers[name("needle", stage, length, depth)] = cells[-1]
        numbers[name("needle", stage, length)] = float(np.mean(cells))
    return numbers


def by_position(model: DeepSeekV3, corpus: Text, rows: int = 4) -> Array:
    """Nats per token at each position of held-out windows, every domain counting the same, (LONGEST,)."""
    means = []
    for stream in corpus.held_out.values():
        total, windows = np.zeros(LONGEST), 0
        whole = min(len(stream) - 1, COMMON["train"]["eval_tokens"]) // LONGEST * LONGEST  # windows are
        for tokens, targets in validation_windows(stream.tokens, rows, LONGEST, whole):
            tokens, targets = plain(tokens), plain(targets)
            logits = model.logits(tokens).astype(np.float64)  # (S, T, V)
            logits -= logits.max(axis=-1, keepdims=True)
            picked = np.take_along_axis(logits, targets[..., None].astype(np.int64), axis=-1)[..., 0]
            total += (np.log(np.exp(logits).sum(axis=-1)) - picked).sum(axis=0)
            windows += len(tokens)
        means.append(total / windows)
    return np.mean(means, axis=0)


def name(what: str, stage: str, at: int, depth: float | None = None) -> str:
    """Name of a number: perplexity ("ppl") of the positions up to ``at``, or share of needles found in ``at`` tokens."""
    return f"{stage} {what} {at}" if depth is None else f"{stage} {what} {at} at {depth:g}"


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    def ppl(arm: str, stage: str = STAGES[0], at: int = LONGEST) -> Summary:
        return arms[arm][name("ppl", stage, at)]

    def needle(arm: str, stage: str = STAGES[0], at: int = LONGEST) -> Summary:
        return arms[arm][name("needle", stage, at)]

    further, here = STAGES[1], needle(NONE, at=TRAINED)
    others = [arm for arm in arms if arm != YARN]
    best = min(others, key=lambda arm: ppl(arm).mean)
    most = max(others, key=lambda arm: needle(arm).mean)
    end = f"at positions {LONGEST - BUCKET} to {LONGEST}"
    worse = f"without an extension, text {end} is predicted worse than at the end of the trained length"
    fewer = f"without an extension, fewer needles are found in {LONGEST} tokens than in {TRAINED}"
    price = f"the price, zero-shot: within {TRAINED} tokens YaRN predicts text worse than the model as trained"
    finds = f"zero-shot, YaRN finds the most needles in {LONGEST} tokens (the best other: {most})"
    tuned = f"tuned, YaRN finds at least 90 % of needles in {LONGEST} tokens"
    return [
        Finding(f"within the {TRAINED} tokens of training at least 90 % of needles are found", here.mean >= 0.9, str(here)),
        below(worse, ppl(NONE, at=TRAINED), ppl(NONE)),
        below(fewer, needle(NONE), here),
        below(f"zero-shot, YaRN predicts text {end} better than no extension", ppl(YARN), ppl(NONE)),
        below(f"zero-shot, YaRN predicts it better than interpolation: {end}", ppl(YARN), ppl(INTERPOLATION)),
        below(f"zero-shot, no other arm predicts it better than YaRN (the best other: {best})", ppl(YARN), ppl(best)),
        below("the ramp helps text, zero-shot (against all frequencies divided)", ppl(YARN), ppl(NO_RAMP)),
        below("the ramp helps needles, zero-shot (against all frequencies divided)", needle(NO_RAMP), needle(YARN)),
        below("a ramp is better than a step for text, zero-shot", ppl(YARN), ppl(STEP)),
        below("mscale helps text, zero-shot", ppl(YARN), ppl(NO_MSCALE)),
        below("mscale helps needles, zero-shot", needle(NO_MSCALE), needle(YARN)),
        below(finds, needle(most), needle(YARN)),
        Finding(tuned, needle(YARN, further).mean >= 0.9, str(needle(YARN, further))),
        below("tuned, YaRN predicts text better than no extension", ppl(YARN, further), ppl(NONE, further)),
        below("tuned, mscale helps text", ppl(YARN, further), ppl(NO_MSCALE, further)),
        below("tuned, the ramp helps text", ppl(YARN, further), ppl(NO_RAMP, further)),
        below(price, ppl(NONE, at=TRAINED), ppl(YARN, at=TRAINED)),
        below("tuned, the price is still to be paid", ppl(NONE, further, TRAINED), ppl(YARN, further, TRAINED)),
    ]


_MODEL = dict(num_hidden_layers=2, kv_lora_rank=32, qk_rope_head_dim=16, initializer_range=0.1, **BALANCED)
# As in V3 two thirds of the pairs turn more than once in the trained length.
_MODEL |= dict(rope_theta=100.0, max_position_embeddings=TRAINED)
_TRAIN = dict(batch_size=8, context_length=TRAINED, learning_rate=0.02, optimizer="muon", warmup_steps=30, eval_tokens=8192)
COMMON = {
    "model": {**MODEL, **_MODEL},
    "train": _TRAIN,
    "facts": dict(kinds=KINDS, values=VALUES, said=list(SAID)),
}

STUDY = Study(
    question="what does YaRN do to a model read at four times its trained length, and what do its ramp and mscale?",
    arms=ARMS,
    run=run,
    shown=tuple(
        name(measured, stage, LONGEST if measured == "ppl" else length)
        for stage in STAGES
        for measured, length in (("ppl", LONGEST), ("needle", TRAINED), ("needle", LONGEST))
    ),
    common=COMMON,
    findings=findings,
    steps=360,
)
