"""The token-boundary bias: prompts that end between punctuation and a line break, and its cure.

DeepSeek-V3 section 4.1: tokens that join punctuation and a line break make models err on prompts without a last line break; a
share of such tokens is split at random in training. Here BPE with 512 tokens learns from the built-in text, with such tokens
and without. From held-out text come prompts that end behind punctuation where the text goes on with a line break:

    break          probability that the model gives to a line break there, in whatever token
    break nats     − log of it, mean over the prompts: how much of a surprise the true text is
    missed         share of the prompts at which it gives less than a hundredth
"""

from functools import cache

import numpy as np

from minids.checkpoint.tokenizer import Tokenizer
from minids.lab.studies.base import BALANCED, COMMON, configs
from minids.lab.studies.compare import above, below
from minids.lab.studies.fim import halves
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary
from minids.lab.studies.training import Curves, train, validate, validation_batches
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.training.corpus import Corpus
from minids.training.evaluate import score
from minids.training.text import Text, layout_for, tokenizer_for
from minids.training.token_boundaries import joined

APART, JOINED, SPLIT = "apart", "joined", "joined, 10 % split"
_JOINS = {"tokenizer": "bpe", "bpe_line_tokens": True}
ARMS = {APART: {"tokenizer": "bpe"}, JOINED: _JOINS, SPLIT: _JOINS | {"line_token_split_rate": 0.1}}
VOCABULARY, CASES, BEFORE = 512, 256, 160  # tokens; prompts of a domain; bytes of a prompt at least


def run(settings: dict, job: Job) -> Outcome:
    model_config, train_config = configs(settings, job, STUDY.common)
    training, held_out = halves(job.data)
    tokenizer = _tokenizer(job.data, train_config.bpe_line_tokens)
    text = Text.encode(training, held_out, tokenizer, layout_for(train_config.replace(seed=job.seed), tokenizer))
    curves = Curves(job.steps)

    def on_step(step, losses, model):
        curves.add(step, loss=losses.main)
        job.tell(1)

    model = train(model_config, train_config, text, job.seed, on_step, threads=job.threads)
    batches = validation_batches(text, train_config)
    bits = [score(model, of_domain, tokenizer)["bits_per_byte"] for of_domain in batches.values()]
    numbers = {"bits_per_byte": float(np.mean(bits)), "loss": validate(model, text, train_config).mean_loss}
    p = breaks(model, tokenizer, prompts(held_out))
    numbers |= {"break": float(p.mean()), "break_nats": float(-np.log(p).mean()), "missed": float((p < 0.01).mean())}
    return Outcome(numbers | {"joining_tokens": len(joined(tokenizer))}, curves.values)


@cache
def _tokenizer(data: tuple[str, ...], line_tokens: bool) -> Tokenizer:
    return tokenizer_for(halves(data)[0], "bpe", VOCABULARY, line_tokens=line_tokens)


def prompts(held_out: Corpus) -> list[str]:
    """Text that ends in punctuation, before a line break; from the beginning of a line, the same for every arm."""
    found = []
    for domain in held_out.domains:
        of_domain = []
        for document in held_out.of(domain):
            text = document.text
            end = text.find(b"\n")
            while end >= 0:
                begin = text.rfind(b"\n", 0, max(end - BEFORE, 0)) + 1
                if begin and text[end - 1 : end] in (b".", b":", b",", b")", b"]", b"}", b"?", b'"', b"'"):
                    of_domain.append(text[begin:end].decode("utf-8", errors="replace"))
                end = text.find(b"\n", end + 1)
        found += [of_domain[i] for i in np.linspace(0, len(of_domain) - 1, min(CASES, len(of_domain))).astype(int)]
    return found


def breaks(model: DeepSeekV3, tokenizer: Tokenizer, texts: list[str], longest: int = 96) -> Array:
    """The probability of a line break behind each text, (S,), read from its last ``longest`` tokens."""
    starts = [tokenizer.decode_bytes([i])[:1] in (b"\n", b"\r") for i in range(tokenizer.vocab_size)]  # (V,)
    rows = [tokenizer.encode(text)[-longest:] for text in texts]
    found = []
    for begin in range(0, len(rows), 64):
        some = rows[begin : begin + 64]
        tokens = np.zeros((len(some), max(map(len, some))), np.int32)  # what stands behind a text, its end does not see
        for row, ids in zip(tokens, some, strict=True):
            row[: len(ids)] = ids
        logits = model.logits(tokens)[np.arange(len(some)), [len(ids) - 1 for ids in some]].astype(np.float64)  # (S, V)
        p = np.exp(logits - logits.max(axis=-1, keepdims=True))
        found.append(p[:, starts].sum(axis=-1) / p.sum(axis=-1))
    return np.concatenate(found)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    nats, bits = ({name: arm[number] for name, arm in arms.items()} for number in ("break_nats", "bits_per_byte"))
    surprise = "with joined tokens a line break behind a prompt's last mark is more of a surprise, nats"
    return [
        above(surprise, nats[JOINED], nats[APART]),
        below("splitting a tenth of them lowers that", nats[SPLIT], nats[JOINED]),
        below("what is left is no more than without joined tokens", nats[SPLIT], nats[APART]),
        below("joined tokens lower the bits per byte", bits[JOINED], bits[APART]),
        below("splitting costs nothing on text as the tokenizer makes it", bits[SPLIT], bits[JOINED]),
    ]


STUDY = Study(
    question="do tokens that join punctuation and line break spoil prompts that end between them, and does splitting help?",
    arms={name: {"model": BALANCED, "train": train} for name, train in ARMS.items()},
    run=run,
    shown=("bits_per_byte", "break", "break_nats", "missed", "joining_tokens"),
    common=COMMON | {"train": COMMON["train"] | {"bpe_vocab_size": VOCABULARY}},
    findings=findings,
)
