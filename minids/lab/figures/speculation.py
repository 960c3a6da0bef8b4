"""Figures 15, 16 and 25: MTP modules as a chain, how many of their guesses stand, and a text that they help to write."""

from math import inf
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from minids.backend import use_backend
from minids.config import ModelConfig
from minids.errors import refuse
from minids.inference.generate import generate, stream
from minids.inference.speculative import Counts
from minids.lab.bench.timing import alternate, median, ratio
from minids.lab.figures.film import in_turn
from minids.lab.figures.picture import LEFT, RIGHT, Box, Film, Rows, Slide, colour, column, distinct, ink_on, only, picture
from minids.lab.figures.style import MONO
from minids.lab.figures.trained import Trained
from minids.lab.figures.training import domain_colours
from minids.model import DeepSeekV3
from minids.training.text import held_out_prompt

GIVEN = 24  # letters of the beginning that are shown
TEXT = ("The", "latent", "is", "all", "that", "is", "cached")
LOOKS = {  # of a token → its fill, its edge, the weight of its letters
    "given": ("panel", "panel", "normal"), "written": ("background", "none", "normal"), "stands": ("rope", "rope", "bold"),
    "struck": ("background", "faint", "normal"), "guess": ("mtp", "mtp", "bold"),
}  # fmt: skip


def _rows(
    run: str | Path = "runs/tiny", domain: str = "", new_tokens: int = 96, temperature: float = 0.6, seed: int = 0
) -> Rows:  # fmt: skip
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


def _flow(lengths: list[int], across: int) -> list[tuple[int, float, float]]:
    """(line, place in it, width) of tokens of so many letters, one behind another in lines of ``across`` cells of one letter;
    none is broken."""
    places, down, x = [], 0, 0.0
    for wide in (1 + 0.62 * (length - 1) for length in lengths):
        if x + wide > across + 1e-9:
            down, x = down + 1, 0.0
        places.append((down, x, wide))
        x += wide
    return places


def _moments(rows: Rows) -> list[tuple[float, int]]:
    """The guess of each pass and what became of it, slowly at first, then pass after pass."""
    last = rows[-1]["pass"]
    slow = [(i + half, 550 if i < 5 else 180) for i in range(min(14, last)) for half in (0.5, 1.0)]
    return slow + in_turn([*map(float, range(15, last)), float(last)], 110, 2500)


@picture(25, _rows, source="run", film=Film(_moments))
def drafts(slide: Slide, rows: Rows, passes: float = inf) -> None:
    """A text written by a trained model and its MTP module: each pass brings a token and a guess, which may be struck out.

    Letters in cells, line by line. A grey beginning is given; then every second cell or so is a guess: in strong colour
    where it stands, struck out where the model chose another letter, which follows. The film shows pass after pass.
    """
    # after so many passes; the guess of the last is still to be judged where that is not a whole number
    passes = min(passes, rows[-1]["pass"])
    stood, struck = len(only(rows, drafted=True)), sum(row["refused"] != "" for row in rows)
    share, about = f"{100 * stood / (stood + struck):.0f} % of the guesses stand", f"temperature {rows[0]['temperature']:g}"
    about = f"After a held-out beginning ({rows[0]['domain']}), {about}. V3's report: 85 to 90 % stand"
    top = slide.headed(f"{rows[-1]['pass']} passes write {len(rows) - 1} tokens: {share}", about) - slide.line
    cells = [({" ": "␣", "\n": "↵"}.get(letter, letter), "given") for letter in rows[0]["prompt"]][-GIVEN:]
    for row in rows:
        pending, guess = row["pass"] > passes, row["token"] if row["drafted"] else row["refused"]
        if guess and row["pass"] <= passes + 0.5:
            cells.append((guess, "guess" if pending else "stands" if row["drafted"] else "struck"))
        if not pending and not row["drafted"]:
            cells.append((row["token"], "written"))
    every = GIVEN * [1] + [len(each) for row in rows for each in (row["refused"], row["token"]) if each]
    wide, room = RIGHT - LEFT, top - 0.35 - 1.9 * slide.line
    cell = max(min(wide / n, room / (1 + _flow(every, n)[-1][0]) / 1.5) for n in range(max(8, max(every)), 80))
    places = _flow([len(letters) for letters, _ in cells], int(wide / cell + 1e-9))
    for (letters, look), (down, across, broad) in zip(cells, places, strict=True):
        x, y, (fill, edge, weight) = LEFT + cell * across, top - 0.3 - 1.5 * cell * (down + 1), LOOKS[look]
        middle, size, ink = y + 0.56 * cell, min(20.0, 58 * cell / slide.letters), ink_on(colour(fill))
        if edge != "none":
            slide.box(x + 0.03, y, cell * broad - 0.06, 1.15 * cell, fill=fill, edge=edge, round=0.05)
        if look == "struck":
            ink, ends = "muted", ((x + 0.1 * cell, middle), (x + cell * (broad - 0.1), middle))
            slide.arrow(*ends, kind="shared", head=False, width=3)
        slide.verbatim(x + cell * broad / 2, middle, letters, size, ink, ha="center", family=MONO, weight=weight)
    looks = [("a guess that stands", "rope"), ("struck out", "shared"), ("given", "faint")]
    slide.legend(LEFT, 0.35 * slide.letters, looks if passes == int(passes) else [("a guess", "mtp"), *looks[:2]])
    done = sum(row["pass"] <= passes for row in rows[1:])
    slide.text(RIGHT, top + 0.2 * slide.line, f"pass {int(passes)}: {done} tokens", 18, ha="right", weight="bold")


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
            good &= logits.argmax(-1)[:, : good.shape[1]] == own[:, depth : depth + good.shape[1]]
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
    fast, plain = (new_tokens * len(beginnings) / median(seconds[way]) for way in ("guesses", "plain"))
    found = {"tokens_per_second": fast, "plain_tokens_per_second": plain, "times_as_fast": ratio(seconds, "guesses", "plain")}
    return found | {"tokens_per_pass_written": counts.tokens_per_pass, "same_text": same}


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
    first, faster = column(only(guesses, depth=1), "accepted"), column([*speeds.values()], "times_as_fast")
    worth = "but text is written only" if max(faster) < 1 else "and text is written"
    times = f"{min(faster):.2f} to {max(faster):.2f} times as fast"
    finding = f"{100 * min(first):.0f} to {100 * max(first):.0f} % of the MTP module's guesses stand, {worth} {times}"
    subtitle = "V3's report, from servers where a second token costs next to nothing: 85 to 90 %, 1.8 times as fast"
    top = slide.headed(finding, subtitle)
    shades, deep, line = domain_colours(list(last)), len(distinct(guesses, "depth")) > 1, slide.line
    low, high, right = 0.3 + 2.3 * line, top - 3.1 * line, RIGHT - 1.6 * slide.letters
    at = {"tokens\na pass": right - 1.6 * slide.letters, "times\nas fast": right + 0.5 * slide.letters}
    names = [slide.cut(row["domain"], 18, 2.0 * slide.letters) + (f", {row['depth']}" if deep else "") for row in guesses]
    x = LEFT + slide.width_of(names, 18) + 0.25
    frame = Box(LEFT, low, at["tokens\na pass"] - slide.letters - LEFT, high - low)
    shares = [100 * row["accepted"] for row in guesses]
    ax = slide.bars(frame, shares, names, ["mtp"] * len(guesses), most=100, thick=0.56, size=18)
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
    words = "on text that it writes,\ngreedy, one thread"
    slide.text(sum(at.values()) / 2, low - 1.35 * line, words, 16, "muted", ha="center", linespacing=1.2)


def _rows_chain(text: tuple[str, ...] = TEXT, depths: int = 1, config: ModelConfig | None = None, seed: int = 0) -> Rows:
    """``text``: the words; ``depths``: MTP modules; ``config``: the model asked, by default the tiny preset with these modules.

    What an output depends on is not drawn from the paper but found out: each word is exchanged in turn, and the outputs that
    change are noted.
    """
    config = config or ModelConfig.preset("tiny").replace(num_hidden_layers=2, num_nextn_predict_layers=depths)
    model = DeepSeekV3(config, seed, np.float64)
    before = np.arange(len(text))[None]  # (1, T): the words' numbers
    exchanged = [np.where(before == place, len(text), before) for place in range(len(text))]
    with use_backend("numpy"):  # a handful of tokens: compiling for float64 would take longer
        outputs, *others = ([model.logits(tokens), *model.mtp_logits(tokens)] for tokens in [before, *exchanged])
    rows: Rows = []
    for depth, own in enumerate(outputs):  # of the main model, and of every MTP depth
        # (word exchanged, position): changed by more than another order of sums
        notices = np.array([np.any(np.abs(own - other[depth]) > 1e-12, axis=-1)[0] for other in others])
        for position, noticed in enumerate(notices.T):
            seen, target = np.flatnonzero(noticed), position + depth + 1
            sees = {"sees_to": int(seen.max()), "sees_all_before": bool(len(seen) == seen.max() + 1)}
            words = {"shown": text[position + depth], "predicts": text[target] if target < len(text) else ""}
            rows.append({"depth": depth, "position": position, "word": text[position]} | sees | words)
    return rows


@picture(15, _rows_chain)
def mtp_chain(slide: Slide, rows: Rows) -> None:
    """Multi-token prediction as a causal chain: each module takes the state of the one before and the next token's
    embedding.

    A grid. Bottom row: the words of a sentence. Above each word the main model's state with the next word as its
    prediction; above that the module's state, which also gets the embedding of the next word and predicts the word after
    it. Faint lines lead from every position to all later ones.
    """
    ahead = {row["depth"]: row["sees_to"] - row["position"] for row in rows}
    assert all(row["sees_to"] - row["position"] == ahead[row["depth"]] for row in rows), "positions differ in how far they see"
    state = {d: "h" + str(d).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")) for d in ahead}
    sees = ", ".join(f"{'i' if not n else f'i + {n}'} at {state[d]}" for d, n in ahead.items())
    finding = "Each MTP module is shown one token more and predicts the one after it"
    top = slide.title(finding, "random weights, measured", f"By exchanging words: position i sees tokens up to {sees}")
    shown = 4 if slide.letters <= 1.2 else 3  # positions drawn
    left = LEFT + 0.25 + slide.width_of(("MTP module 1", "main model"), 18, True)
    pitch, low = (RIGHT - left) / shown, 0.55
    wide, room = pitch * 0.38, top - 0.35 - low - 1.09
    high = max(0.62, 0.12 * room)
    lane = (room - high) / max(1, len(ahead) - 1)
    slide.text(LEFT, low + 0.22, "token", 18, weight="bold")
    below = [slide.box(left + pitch * i, low, wide, 0.48, fill="panel", edge="muted") for i in range(shown)]
    for place, row in zip(below, only(rows, depth=0), strict=False):
        slide.verbatim(*place.middle, row["word"], ha="center")
    for d in ahead:
        y, kind = low + 1.09 + lane * d, "mtp" if d else "hidden"
        name = f"MTP module {d}" if d else "main model"
        slide.lines(LEFT, y + high / 2, (name, 18, "ink", "bold"), (f"predicts i + {d + 1}", 16, "muted"))
        for i, under in enumerate(below):  # every position sees those before it
            for j in range(i + 1, len(below)):
                slide.arrow(under.above, (left + pitch * j + 0.3 * wide, y), kind="faint", width=1.6, head=False)
        for i, row in enumerate(only(rows, depth=d)[:shown]):
            place = slide.box(left + pitch * i, y, wide, high, state[d], kind, 18)
            # from the token, or from the depth before and the embedding of the token shown
            slide.arrow(below[i].above, (place.below[0], y - 0.02))
            below[i], (x, middle) = place, place.behind
            slide.arrow((x, middle), (x + 0.32, middle), kind=kind)
            slide.verbatim(x + 0.4, middle, row["predicts"], weight="bold")
            if d:
                slide.arrow((x + 0.32, y - 0.23), (x - wide * 0.2, y - 0.02), kind="hidden")
                slide.verbatim(x + 0.4, y - 0.25, f"+ {row['shown']}", 16, "muted")
