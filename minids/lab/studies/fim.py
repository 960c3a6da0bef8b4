"""Fill-in-the-middle: what it costs a model that writes from left to right, and whether it then fills in what is missing.

DeepSeek-V3 section 4.1 lays out a tenth of the documents as prefix, suffix, middle, and reports that prediction of the next
token does not suffer. All arms have the same vocabulary and the same initial weights; only the layout of the training text
differs. From held-out documents of each domain ``CASES`` short spans are taken out: a number of a sum, a name in code. A span
counts when it comes back to the letter,

    filled in      by the model shown what stands before and after
    continued      by the same model shown only what stands before, as many characters as are missing

both greedy. The second is all that a model without the training can do.
"""

import re
from functools import cache

import numpy as np

from minids.inference.generate import generate_batch
from minids.inference.infill import infill_ids
from minids.lab.studies.base import BALANCED, COMMON, configs
from minids.lab.studies.compare import above, below
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves, train, validate
from minids.model import DeepSeekV3
from minids.training.corpus import Corpus, load_corpus
from minids.training.text import Text, layout_for, tokenizer_for

PLAIN, TENTH, HALF = "left to right", "fim 0.1", "fim 0.5"
ARMS = {PLAIN: 0.0, TENTH: 0.1, HALF: 0.5}
MISSING = {"arithmetic": rb"(?<= = )\d+(?=\.)", "code": rb"\b[A-Za-z_]{3,10}\b"}
"""Domain → what is taken out: the result of a chain of sums; a word of a program."""
CASES, AROUND, LONGEST = 128, 40, 12  # spans of a domain; bytes shown on either side; tokens that may be written


def run(settings: dict, job: Job) -> Outcome:
    model_config, train_config = configs(settings, job)
    training, held_out = halves(job.data)
    tokenizer = tokenizer_for(training, "bytes", fim=True)
    text = Text.encode(training, held_out, tokenizer, layout_for(train_config.replace(seed=job.seed), tokenizer))
    curves = Curves(job.steps)

    def on_step(step, losses, model):
        curves.add(step, loss=losses.main)
        job.tell(1)

    model = train(model_config, train_config, text, job.seed, on_step, threads=job.threads)
    model.tokenizer = tokenizer
    found = validate(model, text, train_config)
    numbers = {"loss": found.mean_loss} | {f"loss_{domain}": loss for domain, loss in found.loss.items()}
    for domain in held_out.domains:
        spans = cases(held_out, domain)
        if spans:
            numbers[f"continued_{domain}"] = share(spans, continued(model, spans))
            numbers[f"filled_{domain}"] = share(spans, filled(model, spans))
    return Outcome(numbers, curves.values)


@cache
def halves(data: tuple[str, ...]) -> tuple[Corpus, Corpus]:
    return load_corpus(list(data)).split(0.1)


Case = tuple[str, str, str]  # prefix, middle, suffix


def cases(held_out: Corpus, domain: str) -> list[Case]:
    """Spans of a domain's held-out documents, spread evenly over all there are; the same for every arm and seed. A domain
    that ``MISSING`` does not name has none."""
    if domain not in MISSING:
        return []
    found = []
    for document in held_out.of(domain):
        text = document.text
        for match in re.finditer(MISSING[domain], text):
            a, b = match.span()
            if a >= AROUND and b + AROUND <= len(text):
                found.append(
                    tuple(part.decode("utf-8", "replace") for part in (text[a - AROUND : a], text[a:b], text[b : b + AROUND]))
                )
    return [found[i] for i in np.linspace(0, len(found) - 1, min(CASES, len(found))).astype(int)]


def filled(model: DeepSeekV3, spans: list[Case]) -> list[str]:
    prompts = [infill_ids(model, prefix, suffix) for prefix, _, suffix in spans]
    new = generate_batch(model, prompts, LONGEST, stop=[model.tokenizer.eos_id])
    return [model.tokenizer.decode(ids) if len(ids) and ids[-1] == model.tokenizer.eos_id else "" for ids in new]


def continued(model: DeepSeekV3, spans: list[Case]) -> list[str]:
    prompts = [[*model.tokenizer.beginning, *model.tokenizer.encode(prefix)] for prefix, _, _ in spans]
    new = generate_batch(model, prompts, LONGEST)
    return [model.tokenizer.decode(ids)[: len(middle)] for ids, (_, middle, _) in zip(new, spans, strict=True)]


def share(spans: list[Case], written: list[str]) -> float:
    """Of the spans that came back to the letter."""
    return float(np.mean([middle == text for (_, middle, _), text in zip(spans, written, strict=True)]))


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    plain, tenth = arms[PLAIN], arms[TENTH]
    found = [
        below(
            "a tenth of the documents with the middle last leaves the loss from left to right where it is",
            tenth["loss"],
            plain["loss"],
        ),
        below("half of them does too", arms[HALF]["loss"], plain["loss"]),
    ]
    for domain, what in (("arithmetic", "results of sums"), ("code", "words of programs")):
        claim = f"{what} come back more often filled in (rate 0.1) than continued without the training"
        found.append(above(claim, tenth[f"filled_{domain}"], plain[f"continued_{domain}"]))
    return found


STUDY = Study(
    question="what does fill-in-the-middle cost from left to right, and does it fill in?",
    arms={name: {"model": BALANCED, "train": {"fim_rate": rate}} for name, rate in ARMS.items()},
    run=run,
    shown=("loss", "filled_arithmetic", "continued_arithmetic", "filled_code", "continued_code"),
    common=COMMON,
    findings=findings,
    steps=1000,
)
