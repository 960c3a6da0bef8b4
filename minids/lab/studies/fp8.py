"""Training in FP8: does it cost anything, and which of its parts are needed?

The tiny preset in float32, in FP8 as DeepSeek-V3 trains, with one scale per matrix instead of fine tiles, and with sums that
never leave the tensor core. Runs of one seed see the same text from the same initial weights. A last run in float32 with an ε
in AdamW larger by a thousandth shows how far two runs drift apart that differ by rounding alone: what is smaller than that
means nothing. The rate is V3's own, 2.2e-4: it ends no higher than larger ones do, and two runs in float32 end within about a
tenth of a per cent of each other, where at 1e-3 it is a third of one and at 3e-3 two thirds. The last run's trained weights are
then read by the three FP8 models: what the arithmetic costs where nothing drifts, see ``fp8_fixed_weights``.

At these widths (32 to 384) a tile of 128 is often a whole row; tokens are summed over in tiles of 128 as in the paper, and an
expert gets 64 of 256 on average. Sums have 32 to 384 terms, where V3's have 7,168: what is lost without promotion grows with
that number, see ``fp8_errors.accumulation``.
"""

import dataclasses

from minids.config import ModelConfig
from minids.lab.studies import fp8_errors, fp8_fixed_weights
from minids.lab.studies.base import configs
from minids.lab.studies.compare import decided, difference
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves, text, train, validate

FP32, FINE, TENSOR, NEVER, AGAIN = "fp32", "fp8", "fp8 per tensor", "fp8 without promotion", "fp32 again"
ARMS = {
    FP32: {},
    FINE: {"model": {"precision": "fp8"}},
    TENSOR: {"model": {"precision": "fp8", "fp8_scaling": "tensor"}},
    NEVER: {"model": {"precision": "fp8", "fp8_promotion": False}},
    AGAIN: {"train": {"adam_eps": 1.001e-8}},
}
KEPT = 0.99  # of the smoothed loss from step to step
ALLOWED = 0.0025  # V3 section 3.3 and appendix B.1: relative loss error to BF16 below 0.25 %


def run(settings: dict, job: Job) -> Outcome:
    model_config, train_config = configs(settings, job, COMMON)
    corpus, curves, smoothed = text(job.data), Curves(job.steps), None

    def on_step(step, losses, model):
        nonlocal smoothed
        smoothed = losses.main if smoothed is None else KEPT * smoothed + (1 - KEPT) * losses.main
        curves.add(step, loss=losses.main, smoothed=smoothed)
        job.tell(1)

    model = train(model_config, train_config, corpus, job.seed, on_step, threads=job.threads)
    numbers = {"loss": smoothed, "validation": validate(model, corpus, train_config).mean_loss}
    details = {}
    if settings == ARMS[FINE]:
        details = {"outliers": fp8_errors.outliers(), "accumulation": fp8_errors.accumulation()}
    if settings == ARMS[AGAIN]:
        others = {arm: model.config.replace(**ARMS[arm]["model"]) for arm in (FINE, TENSOR, NEVER)}
        numbers |= fp8_fixed_weights.readings(model, others, corpus, train_config, job.seed)
    return Outcome(numbers, curves.values, details)


def differences(arms: dict[str, dict[str, Summary]], arm: str) -> list[float]:
    """Of an arm's loss to float32's, relative, seed by seed: the runs of one seed saw the same text from the same weights."""
    return [a / b - 1 for a, b in zip(arms[arm]["loss"].values, arms[FP32]["loss"].values, strict=True)]


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    """The first holds FP8 to V3's bound, the second to what rounding alone does: below that, a bound is met by chance."""
    fine, drift = differences(arms, FINE), differences(arms, AGAIN)
    error, again = difference(fine), difference(drift)
    further = difference([abs(a) - abs(b) for a, b in zip(fine, drift, strict=True)])
    claim = "with fine tiles the smoothed loss at the end is within 0.25 % of float32's"
    numbers = f"{error.told('+.3%')}; between two runs in float32 {again.told('+.3%')}"
    found = [Finding(claim, error.within(ALLOWED), numbers)]
    claim = "FP8 moves a run no further than another rounding in float32 does"
    numbers = f"FP8 {_seeds(fine)}; float32 again {_seeds(drift)}; of their sizes {further.told('+.3%')}"
    found.append(Finding(claim, decided(-further.sign), numbers))
    scales, sums = "one scale per matrix is worse than fine tiles", "sums without promotion are worse than promoted ones"
    for arm, claim in ((TENSOR, scales), (NEVER, sums)):
        worse = difference([a - b for a, b in zip(differences(arms, arm), fine, strict=True)])
        numbers = f"{difference(differences(arms, arm)).mean:+.3%} against {error.mean:+.3%}, {worse.told('+.3%')}"
        found.append(Finding(claim, decided(worse.sign), numbers))
    return found


def _seeds(of: list[float]) -> str:
    return ", ".join(f"{x:+.2%}" for x in of)


COMMON = {
    "model": dataclasses.asdict(ModelConfig.preset("tiny", initializer_range=0.02)),
    "train": {"batch_size": 4, "context_length": 64, "learning_rate": 2.2e-4, "warmup_steps": 50, "eval_tokens": 8192},
}

STUDY = Study(
    question="does training in FP8 cost anything, and which of its parts are needed?",
    arms=ARMS,
    run=run,
    shown=("loss", "validation"),
    common=COMMON,
    findings=findings,
    steps=2000,
)
