"""Delayed scaling beside V3's online scaling, and BF16 beside both: further arms of ``minids study fp8``, on a smaller model.

V3 section 3.3.2: frameworks that quantise whole tensors take the scale from the maxima of earlier steps; V3 looks at each tile
as it is. Section 3.3: what FP8 is compared with is BF16, not float32. So: float32 and float32 again (an ε in AdamW larger by a
thousandth, which shows what is chance), BF16 operands, FP8 in tiles, with one online scale per matrix, and with a delayed one.
Last, at the float32 arm's trained weights: how far each arithmetic's gradient is from float32's, experts prescribed
(``fp8_fixed_weights``), where nothing drifts.
"""

from minids.lab.studies import fp8, fp8_fixed_weights
from minids.lab.studies.base import BALANCED, COMMON, configs
from minids.lab.studies.compare import above, below, difference
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves, text, train, validate

FP32, AGAIN, BF16, FINE, TENSOR, DELAYED = "fp32", "fp32 again", "bf16", "fp8", "fp8 per tensor", "fp8 delayed"
ARMS = {
    FP32: {},
    AGAIN: {"train": {"adam_eps": 1.001e-8}},
    BF16: {"model": {"precision": "bf16"}},
    FINE: {"model": {"precision": "fp8"}},
    TENSOR: {"model": {"precision": "fp8", "fp8_scaling": "tensor"}},
    DELAYED: {"model": {"precision": "fp8", "fp8_scaling": "delayed"}},
}


def run(settings: dict, job: Job) -> Outcome:
    model_config, train_config = configs(settings, job, STUDY.common)
    corpus, curves, smoothed = text(job.data), Curves(job.steps), None

    def on_step(step, losses, model):
        nonlocal smoothed
        smoothed = losses.main if smoothed is None else fp8.KEPT * smoothed + (1 - fp8.KEPT) * losses.main
        curves.add(step, loss=losses.main, smoothed=smoothed)
        job.tell(1)

    model = train(model_config, train_config, corpus, job.seed, on_step, threads=job.threads)
    numbers = {"loss": smoothed, "validation": validate(model, corpus, train_config).mean_loss}
    if job.arm == FP32:
        # Without a history the delayed scale is the online one: at fixed weights they are one arm.
        others = {arm: model.config.replace(**ARMS[arm]["model"]) for arm in (BF16, FINE, TENSOR)}
        numbers |= fp8_fixed_weights.readings(model, others, corpus, train_config, job.seed)
    return Outcome(numbers, curves.values)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    loss = {name: arm["loss"] for name, arm in arms.items()}

    def off(arm: str) -> list[float]:
        """Relative difference of its loss to float32's, seed by seed."""
        return [a / b - 1 for a, b in zip(loss[arm].values, loss[FP32].values, strict=True)]

    chance = f"float32 again {difference(off(AGAIN)).told('+.3%')}"
    found = []
    for arm in (BF16, FINE, TENSOR, DELAYED):
        told = f"{difference(off(arm)).told('+.3%')}; {chance}"
        found.append(Finding(f"{arm} ends within 0.25 % of float32", difference(off(arm)).within(fp8.ALLOWED), told))
    rounding = {arm: arms[FP32][f"prescribed gradient as {arm}"] for arm in (BF16, FINE, TENSOR)}
    found += [
        above("a delayed scale ends above one of the matrix as it is", loss[DELAYED], loss[TENSOR]),
        below("at the same weights BF16's gradient is nearer to float32's than FP8's", rounding[BF16], rounding[FINE]),
        below("and FP8's in tiles nearer than with one scale per matrix", rounding[FINE], rounding[TENSOR]),
    ]
    return found


STUDY = Study(
    question="does FP8 with delayed scales train as well as with online ones, and where is BF16?",
    arms={name: {**settings, "model": {**BALANCED, **settings.get("model", {})}} for name, settings in ARMS.items()},
    run=run,
    shown=("loss", "validation"),
    common=COMMON | {"train": COMMON["train"] | {"learning_rate": 1e-3}},
    findings=findings,
    steps=200,
)
