"""Arithmetic as an exam: questions that the training text does not hold, answered greedily, right only to the letter.

The questions are worded as the built-in corpus words its problems (``arithmetic.py``): a small model knows no other words.

    one-digit sums          3 + 4 =                 after three lines of drill, or
                            What is 3 + 4?          after another problem
    two-digit sums          What is 47 + 25?        47 + 25 = 60 + 12 = 72.
    two-digit differences   Ann had 52 cups …       52 - 27 = 32 - 7 = 25. Ann has 25 cups now.
    products                One cup costs 14 …      14 * 6 = 60 + 24 = 84. That is 84 cents.
    word problems           all others, with numbers of one and two digits as the corpus draws them

**What is new in them.** Of the two-digit sums, differences and products the numbers themselves: only ``reserved`` problems are
asked, and of these none that is worked out in the training text. Of the word problems the question as a whole. There are
only 90 one-digit sums, all of which any training text holds many times, so that what is new is the text before: this kind
measures whether the table is known, not whether addition was understood.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from minids.blas import one_blas_thread
from minids.errors import MinidsError
from minids.layers.parameters import Array
from minids.model import DeepSeekV3
from minids.training import arithmetic
from minids.training.process_group import ProcessGroup
from minids.training.reserved import reserved

QUESTIONS = 500
"""Of each kind."""
ON_THE_WAY = 64
"""Of each kind of sums, at every validation of a run."""
SEED = 44
"""What the questions are drawn by."""
TAUGHT = 20
"""Examples of a kind in the training text, below which it makes no sense to ask for it."""
SIDE_BY_SIDE = 32
"""Questions in a batch."""


class Question(NamedTuple):
    prompt: str
    answer: str  # one line, without its line break


def questions(training: Iterable[bytes], count: int = QUESTIONS) -> dict[str, list[Question]]:
    """``count`` different questions of each kind, for a model trained on these texts: the same for the same texts. Kinds that
    the texts do not teach are left out."""
    kept, equations = [], set[tuple[int, str, int]]()
    for document in training:  # one after the other: a large corpus lies on the disk
        if _EQUALS in document:
            text = document.decode("utf-8", errors="replace")
            equations.update((int(a), operation, int(b)) for a, operation, b in _EQUATION.findall(text))
            kept += [text] if any(pattern.search(text) for pattern, _ in KINDS.values()) else []
    text = "\n".join(kept)
    seen = Seen(text, frozenset(text.split("\n")), frozenset(equations))
    found = {}
    for number, (kind, (pattern, draw)) in enumerate(KINDS.items()):
        if len(pattern.findall(text)) < TAUGHT:
            continue
        rng, drawn = np.random.default_rng([SEED, number]), dict[str, Question]()
        for _ in range(100 * count):
            if question := draw(rng, seen):
                drawn.setdefault(question.prompt, question)
            if len(drawn) == count:
                break
        else:
            raise MinidsError(f"exam: the training text leaves only {len(drawn)} {kind} to ask for; {count} are needed")
        found[kind] = list(drawn.values())
    return found


def taught(training: Iterable[bytes]) -> bool:
    """Whether these texts teach anything that the exam asks for."""
    text = b"\n".join(document for document in training if _EQUALS in document).decode("utf-8", errors="replace")
    return any(len(pattern.findall(text)) >= TAUGHT for pattern, _ in KINDS.values())


def sums(training: Iterable[bytes]) -> dict[str, list[Question]]:
    """The first few sums of the exam, to be asked while a model trains on these texts."""
    return {kind: some for kind, some in questions(training, ON_THE_WAY).items() if kind.endswith("sums")}


def exact_match(model: DeepSeekV3, asked: dict[str, list[Question]], group: ProcessGroup | None = None) -> dict[str, float]:
    """The share of each kind's questions that the model answers rightly: the line it writes, greedily, is the answer. The
    processes of ``group`` share the kinds."""
    shares = (group or ProcessGroup()).spread(lambda some: (float(right(model, some).mean()),), list(asked.values()))
    return {kind: share for kind, (share,) in zip(asked, shares, strict=True)}


@one_blas_thread()
def right(model: DeepSeekV3, asked: Sequence[Question]) -> Array:
    """Which questions the model answers rightly, (questions,) bool.

    What is generated greedily is the answer if, and only if, each token of the answer is the likeliest after the prompt and
    the tokens before it, and a token with a line break is the likeliest after the last. So one pass over prompt and answer
    decides what generation would, in a fraction of its time.
    """
    tokenizer = model.tokenizer
    ends = np.array([b"\n" in tokenizer.decode_bytes([i]) for i in range(model.config.vocab_size)])
    texts = []
    for question in asked:
        prompt = [*tokenizer.beginning, *tokenizer.encode(question.prompt)]
        texts.append((prompt, tokenizer.encode(question.answer).tolist()))
    found = np.zeros(len(texts), bool)
    by_length = sorted(range(len(texts)), key=lambda i: sum(map(len, texts[i])))  # so that little is filled up
    for first in range(0, len(texts), SIDE_BY_SIDE):
        some = by_length[first : first + SIDE_BY_SIDE]
        rows = [prompt + answer for prompt, answer in (texts[i] for i in some)]
        tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)  # (B, T), filled up at the end, where nobody looks back
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        hidden = model.hidden_states(tokens)[0]  # (B, T, d)
        for i, h in zip(some, hidden, strict=True):
            prompt, answer = texts[i]
            states = h[len(prompt) - 1 : len(prompt) + len(answer)]  # (answer + 1, d): what answer and line break follow from
            said = model.head.forward(states)[0].argmax(axis=-1)
            found[i] = said[:-1].tolist() == answer and ends[said[-1]]
    return found


class Seen(NamedTuple):
    """What the training text holds."""

    text: str  # of all documents with a problem of the exam's kinds
    lines: frozenset[str]
    equations: frozenset[tuple[int, str, int]]  # 3 + 4 is one, whatever follows


_EQUALS = b" = "
_EQUATION = re.compile(r"(\d{1,3}) ([-+*/]) (\d{1,3})(?= =|\?)")
Draw = Callable[[np.random.Generator, Seen], "Question | None"]  # None where the training text holds what was drawn


def _one_digit(rng: np.random.Generator, seen: Seen) -> Question | None:
    a, b = int(rng.integers(10)), int(rng.integers(1, 10))
    if rng.random() < 0.5:
        before = [arithmetic.drill(int(rng.integers(4)), int(rng.integers(10)), int(rng.integers(1, 10))) for _ in range(3)]
        asked, equals, answer = arithmetic.drill(0, a, b).partition("= ")
        question = Question("Drill\n\n" + "".join(f"{line}\n" for line in before) + asked + equals, answer)
    else:
        another = _written(rng, int(rng.integers(arithmetic.KINDS)), _as_the_corpus(rng), _as_the_corpus(rng))
        question = _question(_written(rng, 0, a or b, b), f"{another}\n\n")
    return None if question.prompt in seen.text else question


def _sum(rng: np.random.Generator, seen: Seen) -> Question | None:
    a, b = (int(n) for n in rng.integers(10, 100, 2))
    new = reserved(a, "+", b) and not seen.equations & {(a, "+", b), (b, "+", a)}
    return _question(_written(rng, 0, a, b)) if new else None


def _difference(rng: np.random.Generator, seen: Seen) -> Question | None:
    b, a = sorted(int(n) for n in rng.integers(10, 100, 2))
    new = reserved(a, "-", b) and (a, "-", b) not in seen.equations
    return _question(_written(rng, 2, a, b)) if new else None


def _product(rng: np.random.Generator, seen: Seen) -> Question | None:
    a, b = int(rng.integers(10, 100)), int(rng.integers(2, 10))
    new = reserved(a, "*", b) and (a, "*", b) not in seen.equations
    return _question(_written(rng, 4, a, b - 2)) if new else None  # the corpus' factor is 2 + b mod 8


def _word_problem(rng: np.random.Generator, seen: Seen) -> Question | None:
    text = _written(rng, int(rng.integers(1, arithmetic.KINDS)), _as_the_corpus(rng), _as_the_corpus(rng))
    return None if text.partition("\n")[0] in seen.lines else _question(text)


def _as_the_corpus(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 10 if rng.random() < 0.5 else 100))


def _written(rng: np.random.Generator, kind: int, a: int, b: int) -> str:
    who, thing = (str(rng.choice(names)) for names in (arithmetic.PEOPLE, arithmetic.THINGS))
    return arithmetic.problem(kind, who, thing, a, b)


def _question(problem: str, before: str = "") -> Question:
    """A problem as the corpus writes it, divided where its answer begins."""
    asked, line_break, answer = problem.partition("\n")
    return Question(f"Problems\n\n{before}{asked}{line_break}", answer)


KINDS: dict[str, tuple[re.Pattern[str], Draw]] = {  # how a text that teaches it looks, and how a question is drawn
    "one-digit sums": (re.compile(r"^(?:What is )?\d \+ \d(?: =|\?$)", re.MULTILINE), _one_digit),
    "two-digit sums": (re.compile(r"^What is \d\d \+ \d\d\?$", re.MULTILINE), _sum),
    "two-digit differences": (re.compile(r"^\w+ had \d\d \w+ and gave away \d\d\. How many", re.MULTILINE), _difference),
    "products": (re.compile(r"^One \w+ costs \d\d? cents?\. \w+ buys \d", re.MULTILINE), _product),
    "word problems": (re.compile(r"^\w+ has \d+ \w+ and gets \d+ more\. How many", re.MULTILINE), _word_problem),
}
