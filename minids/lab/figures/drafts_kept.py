"""Figure 25: a text that a trained model writes with its MTP module's guesses: some stand, some are struck out."""

from pathlib import Path

from minids.errors import refuse
from minids.inference.generate import stream
from minids.lab.figures.film import Film
from minids.lab.figures.picture import Rows, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Slide
from minids.lab.figures.style import colour, ink_on
from minids.lab.figures.trained import Trained
from minids.training.text import held_out_prompt

GIVEN = 24  # letters of the beginning that are shown


def _rows(
    run: str | Path = "runs/tiny", domain: str = "", new_tokens: int = 96, temperature: float = 0.6, seed: int = 0
) -> Rows:
    """``run``: a run's folder; ``domain``: whose held-out beginning it continues, the first if not given; ``temperature`` and
    ``seed``: how it draws. A row per token: the pass that brought it, whether it was a guess that stood, and the guess in
    whose place it stands. The text is distributed as without guesses."""
    trained = Trained.open(run)
    model, tokenizer = trained.model, trained.tokenizer
    if not model.mtp:
        raise refuse("run", str(run), "its model has no MTP module, whose guesses are shown")
    domain = domain or trained.held_out.domains[0]
    prompt = held_out_prompt(trained.held_out, domain)
    start = [*tokenizer.beginning, *tokenizer.encode(prompt)]
    rows, passes, begun = [], 0, True  # the first token comes of reading the beginning
    for token in stream(model, start, new_tokens, temperature, seed=seed, speculative=True, draft_tokens=1):
        row = {"domain": domain, "prompt": prompt, "temperature": temperature, "token": trained.letters([token.id])[0]}
        refused = "" if token.refused is None else trained.letters([token.refused])[0]
        passes += begun and bool(rows)
        begun = not token.drafted  # a guess that stood is followed by the token that the same pass gave
        rows.append(row | {"pass": passes, "drafted": token.drafted, "refused": refused})
    return trained.signed(rows)


def _finding(rows: Rows) -> str:
    stood, struck = len(only(rows, drafted=True)), sum(row["refused"] != "" for row in rows)
    return (
        f"{rows[-1]['pass']} passes write {len(rows) - 1} tokens: {100 * stood / (stood + struck):.0f} % of the guesses stand"
    )


def _draw_until(slide: Slide, rows: Rows, passes: float) -> None:
    """The text as it is after so many passes; the guess of the last is still to be judged where that is not a whole number."""
    top = slide.title(
        _finding(rows),
        rows[0]["model"],
        f"After a held-out beginning ({rows[0]['domain']}), temperature {rows[0]['temperature']:g}. "
        "V3's report: 85 to 90 % stand",
    )
    top -= slide.line
    cells = [({" ": "␣", "\n": "↵"}.get(letter, letter), "given") for letter in rows[0]["prompt"]][-GIVEN:]
    for row in rows:
        if row["pass"] > passes + 0.5:
            break
        pending, guess = row["pass"] > passes, row["token"] if row["drafted"] else row["refused"]
        if guess:
            cells.append((guess, "guess" if pending else "stands" if row["drafted"] else "struck"))
        if not pending and not row["drafted"]:
            cells.append((row["token"], "written"))
    total = GIVEN + len(rows) + sum(row["refused"] != "" for row in rows)
    line = slide.line
    wide, room = RIGHT - LEFT, top - 0.35 - 1.9 * line
    cell = max(min(wide / n, room / -(-total // n) / 1.5) for n in range(8, 80))
    across = int(wide / cell + 1e-9)
    fills = {"given": "panel", "written": "background", "stands": "rope", "struck": "background", "guess": "mtp"}
    for i, (letter, look) in enumerate(cells):
        x, y = LEFT + cell * (i % across), top - 0.3 - 1.5 * cell * (i // across + 1)
        fill, middle = colour(fills[look]), y + 0.56 * cell
        if look != "written":
            edge = "faint" if look == "struck" else fill
            slide.box(x + 0.03, y, cell - 0.06, 1.15 * cell, fill=fill, edge=edge, round=0.05)
        ink = colour("muted") if look == "struck" else ink_on(fill)
        weight = "bold" if look in ("stands", "guess") else "normal"
        size = min(20.0, 58 * cell / slide.letters)
        slide.verbatim(x + cell / 2, middle, letter, size, ink, ha="center", family="DejaVu Sans Mono", weight=weight)
        if look == "struck":
            slide.arrow((x + 0.1 * cell, middle), (x + 0.9 * cell, middle), kind="shared", head=False, width=3)
    looks = [("a guess that stands", "rope"), ("struck out", "shared"), ("given", "faint")]
    slide.legend(LEFT, 0.35 * slide.letters, looks if passes == int(passes) else [("a guess", "mtp"), *looks[:2]])
    done = [row for row in rows[1:] if row["pass"] <= passes]
    told = f"pass {int(passes)}: {len(done)} tokens"
    slide.text(RIGHT, top + 0.2 * slide.line, told, 18, ha="right", weight="bold")


def _moments(rows: Rows) -> list[tuple[float, int]]:
    """The guess of each pass and what became of it, slowly at first, then pass after pass."""
    last = rows[-1]["pass"]
    found = [(i + half, 550 if i < 5 else 180) for i in range(min(14, last)) for half in (0.5, 1.0)]
    return [*found, *((float(i), 110) for i in range(15, last)), (float(last), 2500)]


@picture(25, _rows, source="run", film=Film(_moments, _draw_until))
def drafts(slide: Slide, rows: Rows) -> None:
    """A text written by a trained model and its MTP module: each pass brings a token and a guess, which may be struck out.

    Letters in cells, line by line. A grey beginning is given; then every second cell or so is a guess: in strong colour
    where it stands, struck out where the model chose another letter, which follows. The film shows pass after pass.
    """
    _draw_until(slide, rows, rows[-1]["pass"])
