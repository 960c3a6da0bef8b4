"""Notebook 14: a mistake with its label, and the table of who notices which."""

import textwrap
from collections.abc import Sequence

import numpy as np

from minids.lab import notebook
from minids.lab.mistakes import Mistake
from minids.lab.mistakes.labels import LABELS
from minids.lab.mistakes.stamp import CHECKS
from minids.lab.mistakes.symptoms import SYMPTOMS, Measured, right_and_wrong

BLUE, ORANGE = notebook.COLOURS[:2]


def title_of(mistake: Mistake) -> str:
    """gates_from_biased_scores → "Gates from biased scores"."""
    words = mistake.__name__.replace("_", " ")
    for small, large in (("mtp", "MTP"), ("rope", "RoPE"), ("yarn", "YaRN"), ("mla", "MLA"), ("moe", "MoE"), ("fp8", "FP8")):
        words = words.replace(small, large)
    return words[0].upper() + words[1:]


def exhibit(mistake: Mistake) -> None:
    """Label and picture of one mistake: measured now, on the right code and with the mistake in."""
    from IPython.display import Markdown, display

    label = LABELS[mistake]
    display(Markdown(f"#### {title_of(mistake)}\n\n{label.provenance}\n\n```diff\n{label.diff}\n```"))
    _draw(mistake, *right_and_wrong(mistake))
    display(Markdown(f"{label.seen} **Caught by:** {label.caught}"))


def again(exhibit: str = "gates_from_biased_scores") -> None:
    """One picture by the mistake's name, for a list to choose from."""
    mistake = next(m for m in SYMPTOMS if m.__name__ == exhibit)
    _draw(mistake, *right_and_wrong(mistake))


PICTURES = [mistake.__name__ for mistake in SYMPTOMS]
"""Names of the mistakes."""


def _number(value: Measured) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:.2f}"


def _draw(mistake: Mistake, right: Measured, wrong: Measured) -> None:
    from matplotlib.ticker import MaxNLocator

    symptom = SYMPTOMS[mistake]
    if not symptom.where:
        _draw_numbers(mistake, right, wrong)
        return
    figure, axis = notebook.picture(width=5.4, height=2.1)
    if symptom.kind == "bars":
        for offset, (where, value), colour, name in ((-0.2, right, BLUE, "right"), (0.2, wrong, ORANGE, "mistake")):
            axis.bar(where + offset, value, 0.4, color=colour, label=name)
    else:
        marks = (("o", "x"), ("-", "--"))[symptom.kind == "line"]
        looks = {"ms": 5, "mew": 1.6} if symptom.kind == "points" else {}
        axis.plot(*right, marks[0], color=BLUE, label="right", **looks)
        axis.plot(*wrong, marks[1], color=ORANGE, label="mistake", **looks)
    if symptom.log == "sym":
        axis.set_yscale("symlog", linthresh=0.1)
    for letter in symptom.log if symptom.log != "sym" else "":
        getattr(axis, f"set_{letter}scale")("log")
    axis.minorticks_off()
    where = np.asarray(right[0])
    if "x" in symptom.log and len(where) < 9:
        axis.set_xticks(where, [f"{n:,g}" for n in where])
    elif "x" not in symptom.log:
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=where.dtype.kind == "i"))
    axis.set(xlabel=symptom.where, ylabel=symptom.value)
    axis.legend(fontsize=8)
    notebook.show(figure, f"{title_of(mistake)}: {symptom.value} over {symptom.where}, right and with the mistake.")


def _draw_numbers(mistake: Mistake, right: float, wrong: float) -> None:
    """Two bars, each with its number."""
    symptom = SYMPTOMS[mistake]
    label = textwrap.fill(symptom.value, 52)
    figure, axis = notebook.picture(width=5.4, height=1.1 + 0.16 * label.count("\n"))
    axis.barh(["right", "mistake"], [right, wrong], 0.6, color=[BLUE, ORANGE])
    axis.invert_yaxis()
    for y, value in enumerate((right, wrong)):
        axis.text(value, y, f" {_number(value)}", va="center", fontsize=9.5)
    axis.set(xlabel=label, xlim=(0, 1.18 * max(right, wrong)))
    axis.grid(axis="y", visible=False)
    said = f"{_number(right)} right, {_number(wrong)} with the mistake"
    notebook.show(figure, f"{title_of(mistake)}: {symptom.value}, {said}.")


def who_notices(exhibits: Sequence[Mistake], noticed: np.ndarray) -> None:
    """Mistakes down, checks across, (mistakes, checks): a filled circle where the check notices."""
    figure, axis = notebook.picture(width=8, height=0.9 + 0.19 * len(exhibits))
    axis.imshow(noticed, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    for (row, column), caught in np.ndenumerate(noticed):
        mark, colour = ("●", "white") if caught else ("·", "0.6")
        axis.text(column, row, mark, ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(range(len(CHECKS)), [name.replace(" ", "\n", 1) for name in CHECKS])
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(exhibits)), [title_of(mistake) for mistake in exhibits])
    axis.grid(False)
    counts = ", ".join(f"{name}: {n}" for name, n in zip(CHECKS, noticed.sum(axis=0), strict=True))
    notebook.show(figure, f"{len(exhibits)} mistakes and five checks. How many each notices: {counts}.")
