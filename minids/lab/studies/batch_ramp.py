"""A batch that grows, against one that does not, at equal tokens.

DeepSeek-V3 section 4.2 starts with a fifth of the final batch and lets it grow over the first 3.2 % of the run. The report
gives no comparison. Small batches make more steps of the same tokens: where a step's noise is not what limits progress, early
on, more steps are worth more. One arm has V3's ramp, one lets the batch grow over the first three tenths.
"""

from minids.lab.studies.base import BALANCED, COMMON, configs
from minids.lab.studies.compare import below
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves, text, train, validate
from minids.training.batch_ramp import steps_for, tokens_before

CONSTANT, RAMP, LONG = "constant", "V3's ramp", "ramp over 30 %"
V3_RAMP = 469 / 14_800  # of the tokens
ARMS = {CONSTANT: {}, RAMP: {"batch_ramp_until": V3_RAMP}, LONG: {"batch_ramp_until": 0.3}}


def run(settings: dict, job: Job) -> Outcome:
    model_config, train_config = configs(settings, job, STUDY.common)
    tokens = job.steps * train_config.tokens_per_step  # of the constant batch
    train_config = train_config.replace(steps=steps_for(tokens, train_config))
    corpus, curves = text(job.data), Curves(train_config.steps)

    def on_step(step, losses, model):
        curves.add(step, loss=losses.main, tokens=tokens_before(step, train_config))
        if step <= job.steps:
            job.tell(1)

    model = train(model_config, train_config, corpus, job.seed, on_step, threads=job.threads)
    found = validate(model, corpus, train_config)
    numbers = {"loss": found.mean_loss, "steps": train_config.steps, "tokens": tokens_before(train_config.steps, train_config)}
    return Outcome(numbers, curves.values)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    loss = {name: arm["loss"] for name, arm in arms.items()}
    tokens = [arm["tokens"].mean for arm in arms.values()]
    seen = f"{min(tokens):,.0f} to {max(tokens):,.0f}"
    return [
        Finding("all arms see the same tokens, to 1 %", max(tokens) <= 1.01 * min(tokens), seen),
        below("V3's ramp ends below a constant batch", loss[RAMP], loss[CONSTANT]),
        below("a ramp over three tenths of the run ends below a constant batch", loss[LONG], loss[CONSTANT]),
    ]


STUDY = Study(
    question="at equal tokens, is a batch that grows better than one that does not?",
    arms={name: {"model": BALANCED, "train": ramp} for name, ramp in ARMS.items()},
    run=run,
    shown=("loss", "steps", "tokens"),
    common=COMMON | {"train": COMMON["train"] | {"batch_size": 10}},
    findings=findings,
)
