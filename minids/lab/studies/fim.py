"""Fill-in-the-middle: what it costs a model that writes from left to right, and whether it then fills in what is missing.

DeepSeek-V3 section 4.1 lays out a tenth of the documents as prefix, suffix, middle, and reports that prediction of the next
token does not suffer. All arms have the same vocabulary and the same initial weights; only the layout of the training text
differs. From held-out documents of each domain ``CASES`` short spans are taken out: the result of a sum, a word of code.

    filled         the share of spans that come back to the letter, greedily, where what stands before and after is shown
    continued      the same where only what stands before is shown, as many characters as are missing
    nats filled, nats continued     per character of the true span, shown the same two ways

The second way is all that a model without the training can do.
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
from minids.model import IGNORE, DeepSeekV3
from minids.training.corpus import Corpus, load_corpus
from minids.training.text import Text, layout_for, tokenizer_for

PLAIN, TENTH, HALF = "left to right", "fim 0.1", "fim 0.5"
ARMS = {PLAIN: 0.0, TENTH: 0.1, HALF: 0.5}
MISSING = {"arithmetic": rb"(?<= = )\d+(?=\.)", "code": rb"\b[A-Za-z_]{3,10}\b"}
"""Domain → what is taken out: the result of a chain of sums; a word of a program."""
CASES, AROUND, LONGEST = 128, 40, 24  # spans of a domain; bytes shown on either side; tokens that may be written


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
            between = [infill_ids(model, prefix, suffix) for prefix, _, suffix in spans]
            numbers[f"nats_filled_{domain}"] = nats(model, between, spans)
            numbers[f"nats_continued_{domain}"] = nats(model, before(model, spans), spans)
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
    new = generate_batch(model, before(model, spans), LONGEST)
    return [model.tokenizer.decode(ids)[: len(middle)] for ids, (_, middle, _) in zip(new, spans, strict=True)]


def before(model: DeepSeekV3, spans: list[Case]) -> list[list[int]]:
    """The prompts that show only what stands before."""
    return [[*model.tokenizer.beginning, *model.tokenizer.encode(prefix).tolist()] for prefix, _, _ in spans]


def nats(model: DeepSeekV3, prompts: list[list[int]], spans: list[Case]) -> float:
    """Per token of the true spans, each behind its prompt."""
    middles = [model.tokenizer.encode(middle).tolist() for _, middle, _ in spans]
    width = max(len(prompt) + len(middle) for prompt, middle in zip(prompts, middles, strict=True)) - 1
    tokens, targets = np.zeros((len(spans), width), np.int32), np.full((len(spans), width), IGNORE)
    for row, goals, prompt, middle in zip(tokens, targets, prompts, middles, strict=True):
        text = [*prompt, *middle]
        row[: len(text) - 1] = text[:-1]
        goals[len(prompt) - 1 : len(text) - 1] = middle
    return model.losses(tokens, targets, mtp=False).main


def share(spans: list[Case], written: list[str]) -> float:
    """Of the spans that came back to the letter."""
    return float(np.mean([middle == text for (_, middle, _), text in zip(spans, written, strict=True)]))


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    plain, tenth = arms[PLAIN], arms[TENTH]
    found = [
        below(
            "with a tenth of the documents laid out so, the loss from left to right is not above", tenth["loss"], plain["loss"]
        ),
        below("nor with half of them", arms[HALF]["loss"], plain["loss"]),
    ]
    for domain, what in (("arithmetic", "results of sums"), ("code", "words of programs")):
        for arm, rate in ((TENTH, 0.1), (HALF, 0.5)):
            claim = f"rate {rate}: {what} are less of a surprise with the text behind them than without it, nats"
            found.append(below(claim, arms[arm][f"nats_filled_{domain}"], arms[arm][f"nats_continued_{domain}"]))
        claim = f"{what} come back more often filled in (rate 0.5) than continued without the training"
        found.append(above(claim, arms[HALF][f"filled_{domain}"], plain[f"continued_{domain}"]))
    return found


STUDY = Study(
    question="what does fill-in-the-middle cost from left to right, and does it fill in?",
    arms={name: {"model": BALANCED, "train": {"fim_rate": rate}} for name, rate in ARMS.items()},
    run=run,
    shown=(
        "loss",
        *(f"{number}_{domain}" for domain in MISSING for number in ("filled", "continued", "nats_filled", "nats_continued")),
    ),
    common=COMMON,
    findings=findings,
    steps=600,
)
