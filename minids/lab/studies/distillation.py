"""A small student after GRPO's teacher: by rewards of its own, by the teacher's answers, by the teacher's expectations.

DeepSeek-V3 section 5.4.1 distils a reasoner into V3, and R1's report finds small models better taught by a large one's answers
than by reinforcement of their own. Here the teacher is the model of ``minids study grpo`` after GRPO, and the student, less
than a fifth of its size, was pretrained on as much of the same erring text. By arm:

    GRPO                                    as many rounds as the teacher had
    answers of the base, of the teacher     one to each question, drawn at temperature 1 and learned ``epochs`` times
    expectations of the teacher             at the tokens of the same answers: KL(teacher ‖ student), ``ops/distillation.py``
"""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np

from minids.config.policy import PolicyConfig
from minids.lab.studies import grpo
from minids.lab.studies.compare import above, below
from minids.lab.studies.erring_sums import BREAK, LONGEST, task
from minids.lab.studies.post_training import BASE, MODEL, base, checked_data, learn, measured, timed, twin
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves
from minids.model import DeepSeekV3
from minids.training.imitation import distil
from minids.training.printing import without_bars

STUDENT = MODEL | dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, q_lora_rank=16, kv_lora_rank=8, intermediate_size=96,
    moe_intermediate_size=16,
)  # fmt: skip
TUNING = dict(epochs=8, context_length=64, batch_size=32, learning_rate=3e-3, decay_to=0.1)

TEACHER, STUDENT_BEFORE, OWN = "teacher", "student", "student, GRPO"
OF_BASE, OF_TEACHER, LOGITS = "answers of the base", "answers of the teacher", "expectations of the teacher"
ARMS: dict[str, dict] = {
    TEACHER: {"who": "teacher"},
    STUDENT_BEFORE: {},
    OWN: {"policy": {}},
    OF_BASE: {"after": "base"},
    OF_TEACHER: {"after": "teacher"},
    LOGITS: {"after": "teacher", "logits": True},
}


def run(settings: dict, job: Job) -> Outcome:
    checked_data(job)
    if settings.get("who") == "teacher":
        job.tell(job.steps)
        return Outcome(measured(teacher(job.seed, job.steps)))
    before = base(job.seed, json.dumps(STUDENT), json.dumps(BASE))
    student, curves = twin(before), {}
    if "policy" in settings:
        policy = PolicyConfig(**grpo.POLICY, steps=job.steps, seed=job.seed, eval_every=0)
        (_, curves), seconds = timed(lambda: learn(student, policy, job))
    elif "after" in settings:
        large = base(job.seed, json.dumps(MODEL), json.dumps(BASE))
        large = teacher(job.seed, job.steps) if settings["after"] == "teacher" else large
        history, seconds = timed(lambda: follow(student, large, bool(settings.get("logits")), job))
        lines = Curves(len(history))
        for line in history:
            lines.add(line["step"], loss=line["loss"])
        curves = lines.values
        job.tell(job.steps)
    else:
        seconds = 0.0
        job.tell(job.steps)
    sizes = {"parameters": student.parameters.values.size, "seconds_learning": seconds}
    return Outcome(measured(student, before) | sizes, curves)


def follow(student: DeepSeekV3, large: DeepSeekV3, logits: bool, job: Job) -> list[dict]:
    """Distillation from answers to as many questions as GRPO asks."""
    asked, rng = task().questions, np.random.default_rng([job.seed, 2])
    count = job.steps * grpo.POLICY["questions"]
    prompts = [asked[i] for i in rng.choice(len(asked), count, replace=count > len(asked))]
    drawn = dict(max_new_tokens=LONGEST, seed=job.seed, stop=[BREAK])
    with without_bars():
        return distil(student, large, prompts, logits, **drawn, say=lambda line: None, **TUNING)


@lru_cache(maxsize=1)
def teacher(seed: int, steps: int) -> DeepSeekV3:
    """The model of a seed after GRPO. A process makes it once."""
    model = twin(base(seed, json.dumps(MODEL), json.dumps(BASE)))
    learn(model, PolicyConfig(**grpo.POLICY, steps=steps, seed=seed, eval_every=0), Job(grpo.GRPO, seed, steps))
    return model


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    one = {arm: numbers["pass@1"] for arm, numbers in arms.items()}
    entropy = {arm: numbers["entropy"] for arm, numbers in arms.items()}
    return [
        above("the teacher's answers teach the student more than rewards of its own", one[OF_TEACHER], one[OWN]),
        above("the teacher's answers teach more than those of the base it was made of", one[OF_TEACHER], one[OF_BASE]),
        above("the teacher's expectations teach more than its answers", one[LOGITS], one[OF_TEACHER]),
        below("the student stays below its teacher", one[OF_TEACHER], one[TEACHER]),
        below("the student is as sure as its teacher or less: entropy", entropy[TEACHER], entropy[OF_TEACHER]),
    ]


STUDY = Study(
    question="does a small student learn more from a large one's answers than from rewards of its own?",
    arms=ARMS,
    run=run,
    shown=("pass@1", "pass@8", "greedy", "entropy", "length"),
    common={"student": STUDENT, "teacher": MODEL, "base": BASE, "policy": grpo.POLICY, "tuning": TUNING},
    findings=findings,
    seeds=(0, 1, 2, 3, 4, 5),
    steps=400,
)
