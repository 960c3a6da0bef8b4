"""Figures 16 and 25: how many of the MTP module's guesses stand, what that is worth, and a text that it helps to write."""

from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from minids.errors import refuse
from minids.inference.generate import generate, stream
from minids.inference.speculative import Counts
from minids.lab.bench.timing import alternate, median, ratio
from minids.lab.figures.film import Film
from minids.lab.figures.picture import Rows, column, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
from minids.lab.figures.style import colour, ink_on
from minids.lab.figures.trained import Trained
from minids.lab.figures.training import domain_colours
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
    every = GIVEN * [1] + [len(each) for row in rows for each in (row["refused"], row["token"]) if each]
    line = slide.line
    wide, room = RIGHT - LEFT, top - 0.35 - 1.9 * line
    cell = max(min(wide / n, room / (1 + _flow(every, n)[-1][0]) / 1.5) for n in range(max(8, max(every)), 80))
    fills = {"given": "panel", "written": "background", "stands": "rope", "struck": "background", "guess": "mtp"}
    places = _flow([len(letters) for letters, _ in cells], int(wide / cell + 1e-9))
    for (letters, look), (down, across) in zip(cells, places, strict=True):
        broad = cell * _cells(len(letters))
        x, y = LEFT + cell * across, top - 0.3 - 1.5 * cell * (down + 1)
        fill, middle = colour(fills[look]), y + 0.56 * cell
        if look != "written":
            edge = "faint" if look == "struck" else fill
            slide.box(x + 0.03, y, broad - 0.06, 1.15 * cell, fill=fill, edge=edge, round=0.05)
        ink = colour("muted") if look == "struck" else ink_on(fill)
        weight = "bold" if look in ("stands", "guess") else "normal"
        size = min(20.0, 58 * cell / slide.letters)
        slide.verbatim(x + broad / 2, middle, letters, size, ink, ha="center", family="DejaVu Sans Mono", weight=weight)
        if look == "struck":
            slide.arrow((x + 0.1 * cell, middle), (x + broad - 0.1 * cell, middle), kind="shared", head=False, width=3)
    looks = [("a guess that stands", "rope"), ("struck out", "shared"), ("given", "faint")]
    slide.legend(LEFT, 0.35 * slide.letters, looks if passes == int(passes) else [("a guess", "mtp"), *looks[:2]])
    done = [row for row in rows[1:] if row["pass"] <= passes]
    told = f"pass {int(passes)}: {len(done)} tokens"
    slide.text(RIGHT, top + 0.2 * slide.line, told, 18, ha="right", weight="bold")


def _cells(letters: int) -> float:
    """Width of a token of so many letters, in cells of one letter."""
    return 1 + 0.62 * (letters - 1)


def _flow(lengths: list[int], across: int) -> list[tuple[int, float]]:
    """(line, place in it) of tokens of these lengths, one behind another in lines of ``across`` cells; none is broken."""
    places, down, x = [], 0, 0.0
    for length in lengths:
        if x + _cells(length) > across + 1e-9:
            down, x = down + 1, 0.0
        places.append((down, x))
        x += _cells(length)
    return places


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


def _rows_accepted(
    run: str | Path = "runs/tiny", length: int = 256, windows: int = 8, new_tokens: int = 96, rounds: int = 7
) -> Rows:
    """``run``: a run's folder; ``windows`` windows of ``length`` tokens of every domain's held-out text are read.

    At position i the module is shown the true t_{i+1} and guesses t_{i+2}; the guess is accepted where the main model, having
    read up to t_{i+1}, puts the same token first. A chain of guesses counts as long as all before were accepted. Then
    ``new_tokens`` tokens are written behind each of four beginnings with and without guesses, by turns, ``rounds`` times.
    """
    trained = Trained.open(run)
    model = trained.model
    if not model.mtp:
        raise refuse("run", str(run), "its model has no MTP module, which this picture is about")
    rows: Rows = []
    for domain in trained.held_out.domains:
        tokens = trained.window(domain, length, windows)
        own = model.logits(tokens).argmax(-1)  # (B, T): what the model itself puts at i + 1
        good = np.ones((windows, length - len(model.mtp)), bool)
        right = float(np.mean(own[:, :-1] == tokens[:, 1:]))
        passes = 1.0
        for depth, logits in enumerate(model.mtp_logits(tokens), start=1):
            guess = logits.argmax(-1)[:, : good.shape[1]]
            good &= guess == own[:, depth : depth + good.shape[1]]
            passes += float(good.mean())
            found = {"accepted": float(good.mean()), "tokens_per_pass": passes, "main_model_right": right}
            rows.append({"group": "guess", "domain": domain, "depth": depth} | found | {"positions": int(good.size)})
        rows.append({"group": "speed", "domain": domain, **_speed(trained, tokens[:4, :64], new_tokens, rounds)})
    return trained.signed(rows)


def _speed(trained: Trained, beginnings: np.ndarray, new_tokens: int, rounds: int) -> dict:
    """Tokens per second with and without guesses, greedy, behind ``beginnings`` (P, T), one thread."""
    model, counts = trained.model, Counts()

    def write(speculative: bool) -> list[list[int]]:
        told = {"counts": counts} if speculative else {}
        return [generate(model, text, new_tokens, speculative=speculative, **told).tolist() for text in beginnings]

    with threadpool_limits(1, user_api="blas"):
        same = write(True) == write(False)
        seconds = alternate({"guesses": lambda: write(True), "plain": lambda: write(False)}, rounds)
    written = new_tokens * len(beginnings)
    return {
        "tokens_per_second": written / median(seconds["guesses"]),
        "plain_tokens_per_second": written / median(seconds["plain"]),
        "times_as_fast": ratio(seconds, "guesses", "plain"),
        "tokens_per_pass_written": counts.tokens_per_pass,
        "same_text": same,
    }


@picture(16, _rows_accepted, source="run, measured")
def guesses_accepted(slide: Slide, rows: Rows) -> None:
    """Share of the MTP module's guesses that agree with the model's own choice on held-out text, and what they do to the speed
    of text that the model writes.

    One horizontal bar per domain, the percentage of guesses accepted on held-out text, with a mark for how often the model
    itself is right; numbers beside it, on text that the model writes, give the tokens per forward pass, between one and
    two, and how many times as fast it is written, which is less.
    """
    guesses, speeds = only(rows, group="guess"), {row["domain"]: row for row in only(rows, group="speed")}
    last = {row["domain"]: row for row in guesses}  # the deepest of each
    first, faster = column(only(guesses, depth=1), "accepted"), [speeds[domain]["times_as_fast"] for domain in last]
    worth = "but text is written only" if max(faster) < 1 else "and text is written"
    top = slide.title(
        f"{100 * min(first):.0f} to {100 * max(first):.0f} % of the MTP module's guesses stand, {worth} "
        f"{min(faster):.2f} to {max(faster):.2f} times as fast",
        rows[0]["model"],
        "V3's report, from servers where a second token costs next to nothing: 85 to 90 %, 1.8 times as fast",
    )
    shades, deep, line = domain_colours(list(last)), len({row["depth"] for row in guesses}) > 1, slide.line
    low, high, right = 0.3 + 2.3 * line, top - 3.1 * line, RIGHT - 1.6 * slide.letters
    at = {"tokens\na pass": right - 1.6 * slide.letters, "times\nas fast": right + 0.5 * slide.letters}
    accepted = [100 * row["accepted"] for row in guesses]
    names = [slide.cut(row["domain"], 18, 2.0 * slide.letters) + (f", {row['depth']}" if deep else "") for row in guesses]
    x = LEFT + slide.width_of(names, 18) + 0.25
    frame = Box(LEFT, low, at["tokens\na pass"] - slide.letters - LEFT, high - low)
    ax = slide.bars(frame, accepted, names, ["mtp"] * len(guesses), most=100, thick=0.56, size=18)
    ax.set(xticks=(0, 50, 100), xlabel="guesses that stand, %")
    for place, (row, name) in enumerate(zip(guesses, ax.get_yticklabels(), strict=True)):
        name.set_color(shades[row["domain"]])
        ax.plot([100 * row["main_model_right"]] * 2, [place - 0.4, place + 0.4], color=colour("ink"), linewidth=3 * slide.scale)
        looks = dict(color=ink_on(colour("mtp")), fontweight="bold")
        slide.label(ax, 0, place, f"{100 * row['accepted']:.0f} %", 19, 14, "center_baseline", **looks)
        if row is last[row["domain"]]:
            y, speed = high - (high - low) * (place + 0.6) / (len(guesses) + 0.2), speeds[row["domain"]]
            for name, words, kind in zip(at, ("tokens_per_pass_written", "times_as_fast"), ("mtp", "ink"), strict=True):
                slide.text(at[name], y, f"{speed[words]:.2f}", 22, kind, ha="center", weight="bold")
    slide.text(x, top - 1.5 * line, "line: how often\nthe model is right", 16, "muted", linespacing=1.2)
    for words, place in at.items():
        slide.text(place, top - 1.5 * line, words, 18, ha="center", weight="bold")
    told = "on text that it writes,\ngreedy, one thread"
    slide.text(sum(at.values()) / 2, low - 1.35 * line, told, 16, "muted", ha="center", linespacing=1.2)
