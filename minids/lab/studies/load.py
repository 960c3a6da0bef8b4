"""Every expert's load while a model trains, for each way of balancing: the collapse, and how it is kept away.

DeepSeek-V3 section 2.1.2. The arms are four of ``minids study balance``, whose results say what evenness costs; here the load
of each expert is kept all along the run, which one number per step does not tell: whether the same experts are always busy, and
which of them never work.
"""

import numpy as np

from minids.lab.analysis.routing import relative_load
from minids.lab.studies import balance
from minids.lab.studies.base import COMMON, configs
from minids.lab.studies.compare import below
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import text, train
from minids.training.metrics import max_violation

NO, BATCH, SEQUENCE, BIAS = "none", "batch loss 0.1", "sequence loss 0.1", "bias 0.003 + sequence loss 0.0001"
POINTS = 60  # moments along a run at which loads are kept, each the sum since the one before
IDLE = 0.1  # share of an even load below which an expert counts as idle


def run(settings: dict, job: Job) -> Outcome:
    model_config, train_config = configs(settings, job)
    every = max(1, job.steps // POINTS)
    steps, losses, loads, waiting = [], [], [], []  # the last two hold (MoE layers, E) each

    def on_step(step, found, model):
        waiting.append(np.asarray(found.counts))
        losses.append(found.main)
        if step % every == 0 or step == job.steps:
            loads.append(np.sum(waiting, axis=0))
            steps.append(step)
            waiting.clear()
        job.tell(1)

    train(model_config, train_config, text(job.data), job.seed, on_step, threads=job.threads)
    last = np.sum(loads[-max(1, len(loads) // 4) :], axis=0)  # over the last quarter
    shares = relative_load(last)
    numbers = {
        "busiest": float(shares.max(axis=-1).mean()),
        "idlest": float(shares.min(axis=-1).mean()),
        "idle": float((shares < IDLE).sum(axis=-1).mean()),  # experts of a layer
        "max_vio": float(max_violation(last).mean()),
        "loss": float(np.mean(losses[-max(1, len(losses) // 20) :])),
    }
    curves = {"step": steps, "max_vio": [float(max_violation(counts).mean()) for counts in loads]}
    details = {"step": steps, "relative_load": relative_load(np.array(loads)).transpose(1, 0, 2).round(3).tolist()}
    return Outcome(numbers, curves, details)  # relative_load (MoE layers, moments, E)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    idle, vio = ({name: arm[number] for name, arm in arms.items()} for number in ("idle", "max_vio"))
    some, balanced = f"experts of 16 below {IDLE:g} of an even load: {NO}: {idle[NO]}", [name for name in arms if name != NO]
    each = "; ".join(f"{name}: {idle[name]}" for name in balanced)
    return [
        Finding("without balancing some experts never work", idle[NO].mean >= 1, some),
        Finding("every way of balancing keeps all experts at work", max(idle[name].mean for name in balanced) < 1, each),
        below("V3's bias is as even as a loss over the batch", vio[BIAS], vio[BATCH], "MaxVio "),
    ]


STUDY = Study(
    question="how does every expert's load move while a model trains, without balancing, with a loss, with V3's bias?",
    arms={name: balance.STUDY.arms[name] for name in (NO, BATCH, SEQUENCE, BIAS)},
    run=run,
    shown=("busiest", "idlest", "idle", "max_vio", "loss"),
    common=COMMON,
    findings=findings,
)
