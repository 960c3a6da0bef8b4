"""Notebook 9: accepted and replaced, a text written in passes, and what a guess is worth."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minids.config import ModelConfig
from minids.lab import notebook
from minids.lab.analysis import parameters
from minids.lab.analysis.flops import weights_read

Array = np.ndarray
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
V3 = ModelConfig.preset("deepseek-v3")


def accepted_and_replaced(*, p: Array, q: Array, accepted: Array, replaced: Array, frequency: Array) -> None:
    """Left: the two ways in which a token arrives. Right: what was drawn by the rule. All (V,)."""
    figure, (left, right) = notebook.picture(1, 2, width=9, height=2.7)
    place = np.arange(len(p))
    left.bar(place, accepted, color=BLUE, label="accepted: min(p, q)")
    left.bar(place, replaced, bottom=accepted, color=ORANGE, label="replaced")
    left.plot(place, p, "_", color=BLACK, ms=30, mew=2, label="p")
    left.plot(place, q, ".", color="0.5", ms=9, label="q")
    left.set(xlabel="token", ylabel="probability", ylim=(0, 0.65))
    left.legend(ncols=2)
    right.bar(place - 0.2, p, 0.4, color="0.7", label="the model's p")
    right.bar(place + 0.2, frequency, 0.4, color=BLUE, label="20,000 tokens by the rule")
    right.set(xlabel="token")
    right.legend()
    alt = "Left: accepted and replaced parts stack up exactly to p. Right: frequencies of 20,000 drawn tokens match p."
    notebook.show(figure, alt)


class Round(NamedTuple):
    """One pass of the main model, in pieces of text."""

    chosen: str
    guess: str
    stood: bool


def passes(rounds: Sequence[Round], columns: int = 92) -> None:
    """The text as it was written: black what the model chose, green guesses that stood, orange and struck out the others."""
    lines, x = [[]], 0
    for chosen, guess, stood in rounds:
        pass_ = Round(chosen.replace("\n", "⏎"), guess.replace("\n", "⏎"), stood)
        long = len(pass_.chosen) + len(pass_.guess) + 2
        if x + long > columns:
            lines.append([])
            x = 0
        lines[-1].append((x, pass_))
        x += long
    figure, axis = notebook.picture(width=9.4, height=0.25 + 0.5 * len(lines))
    axis.set(xlim=(-0.5, columns + 1), ylim=(-len(lines) + 0.45, 0.5))
    axis.axis("off")
    letters = {"family": "DejaVu Sans Mono", "fontsize": 11.5, "va": "center"}
    for row, line in enumerate(lines):
        for x, (chosen, guess, stood) in line:
            axis.text(x, -row, chosen, color=BLACK, **letters)
            at = x + len(chosen)
            axis.text(at, -row, guess, color=GREEN if stood else ORANGE, weight="bold" if stood else "normal", **letters)
            if not stood:
                axis.plot([at, at + len(guess)], [-row, -row], color=ORANGE, lw=1.2)
            end = at + len(guess) + 0.75
            axis.plot([end, end], [-row - 0.28, -row + 0.28], color="0.8", lw=0.8)
    stood = sum(r.stood for r in rounds)
    alt = f"A text cut into {len(rounds)} passes. In {stood} of them the guess stood, green; in the others it is struck out."
    notebook.show(figure, alt)


def seconds(users: int, balance: float, tokens: int, config: ModelConfig = V3) -> tuple[float, float]:
    """Time of a pass of ``tokens`` tokens per user, and of a guess, in bytes read (a weight: one byte).

    ``balance``: FLOPs that the machine does while it reads one byte. A pass takes the longer of reading and computing.
    """
    read, read_by_guess = weights_read(config, users * tokens), weights_read(config, users, mtp=True)
    per_token = 2 * parameters.activated(config)  # FLOPs
    per_guess = 2 * (parameters.mtp_activated(config) + config.vocab_size * config.hidden_size)
    return max(read, users * tokens * per_token / balance), max(read_by_guess, users * per_guess / balance)


def worth(acceptance: float = 0.875, balance: int = 295) -> None:
    """Left: guesses a pass at the cost of V3 with 128 users. Right: one guess, against the number of users."""
    figure, (left, right) = notebook.picture(1, 2, width=9.5, height=3.1)
    guesses = np.arange(0, 9)
    main, guess = weights_read(V3, 128), weights_read(V3, 128, mtp=True)
    checked = np.array([weights_read(V3, 128 * (n + 1)) for n in guesses]) / main
    for alpha, colour in {acceptance: BLUE, 0.95: BLACK, 0.7: GREEN, 0.5: ORANGE}.items():
        tokens = (1 - alpha ** (guesses + 1)) / (1 - alpha)
        left.plot(guesses, tokens / (checked + guesses * guess / main), "o-", color=colour, label=f"acceptance {alpha:g}")
    left.set(xlabel="guesses a pass", ylabel="speed-up", title="Memory-bound, 128 users")
    left.legend()
    users = np.unique(np.geomspace(1, 8192, 60).astype(int))
    for at, colour, style in ((10, ORANGE, "--"), (balance, BLUE, "-")):
        speed = []
        for n in users:
            plain, _ = seconds(n, at, 1)
            checking, guessing = seconds(n, at, 2)
            speed.append((1 + acceptance) * plain / (checking + guessing))
        right.semilogx(users, speed, style, color=colour, base=2, label=f"{at} FLOPs a byte")
    for axis in (left, right):
        axis.axhline(1, color="0.5", lw=1)
    right.set(xlabel="users", title=f"One guess, accepted with {acceptance:g}", ylim=(0.7, 2))
    right.legend()
    notebook.show(
        figure,
        "Left: speed-up against guesses per pass rises and flattens, later for higher acceptance. Right: against users it "
        "rises to 1.8 while experts fill up, and drops below 1 once arithmetic is the limit.",
    )
