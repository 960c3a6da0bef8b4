"""Figure 9: how the router of a trained model chooses for one token; as a film, step by step, and then for many tokens."""

from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minids.lab.figures.film import in_turn
from minids.lab.figures.picture import LEFT, RIGHT, Film, Rows, Slide, colour, column, only, picture, tint
from minids.lab.figures.style import MONO
from minids.lab.figures.trained import Trained
from minids.ops import router

SHOWN = 20  # tokens whose choices the film shows one by one
LOADS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)  # tokens after which it shows the load


def _rows(run: str | Path = "runs/tiny", domain: str = "", length: int = 256, block: int | None = None) -> Rows:
    """``run``: a run's folder; ``domain``: whose held-out text is read, ``block``: whose router, by default any. Of the first
    ``length`` tokens of each that one is shown whose second-best expert misses out by the most because its group did, and
    whose choice the bias changes; where there is none, one whose choice the bias changes; else the middle one."""
    trained = Trained.open(run)
    c, blocks = trained.model.config, trained.moe_blocks() if block is None else [block]
    _, domain, block, n = max(
        (_story(_steps(trained, b, routing.scores[n])), d, b, n)
        for d in ([domain] if domain else trained.held_out.domains)
        for b, routing in trained.routings(trained.window(d, length)).items()
        if b in blocks
        for n in range(8, length)
    )
    tokens = trained.window(domain, length)
    routing = trained.routings(tokens)[block]
    steps, size = _steps(trained, block, routing.scores[n]), c.n_routed_experts // c.n_group
    gates = dict(zip(routing.chosen[n].tolist(), routing.gates[n].tolist(), strict=True))
    read = "".join(trained.letters(tokens[0, max(0, n - 8) : n + 1]))
    rows: Rows = [
        {"block": block, "quote": read, "domain": domain, "shared": c.n_shared_experts}
        | {"expert": e, "group": e // size, "score": float(routing.scores[n, e]), "bias": float(steps.bias[e])}
        | {"group_score": float(steps.best[e // size]), "group_kept": e // size in steps.kept, "chosen": e in gates}
        | {"chosen_without_bias": e in steps.without, "gate": gates.get(e, 0.0)}
        for e in range(c.n_routed_experts)
    ]
    rows += [
        {"next": i, "token": letter, "expert": int(e), "gate": float(g)}
        for i, letter in enumerate(trained.letters(tokens[0, n + 1 : n + 1 + SHOWN]))
        for e, g in zip(routing.chosen[n + 1 + i], routing.gates[n + 1 + i], strict=True)
    ]
    return trained.signed(rows + _loads(trained, block))


class _Steps(NamedTuple):
    """The router's choice for one token, step by step."""

    biased: np.ndarray  # (E,)
    bias: np.ndarray  # (E,)
    best: np.ndarray  # (G,) each group's score
    kept: set  # groups
    chosen: set
    without: set  # what would be chosen if there were no bias


def _steps(trained: Trained, block: int, scores: np.ndarray) -> _Steps:
    c, moe = trained.model.config, trained.model.blocks[block].moe
    bias = np.zeros(c.n_routed_experts) if moe.bias is None else moe.bias
    settings = (c.num_experts_per_tok, c.n_group, c.topk_group, c.topk_method)
    chosen, without = (set(router.choose(s[None], *settings)[0].tolist()) for s in (scores + bias, scores))
    grouped = (scores + bias).reshape(c.n_group, -1)
    best = np.sort(grouped, axis=1)[:, -2:].sum(axis=1) if c.topk_method == "noaux_tc" else grouped.max(axis=1)
    kept = np.argsort(-best, kind="stable")[: c.n_group if c.topk_method == "greedy" else c.topk_group]
    return _Steps(scores + bias, bias, best, set(kept.tolist()), chosen, without)


def _story(steps: _Steps) -> tuple:
    """Larger for a token of which there is more to tell."""
    second = int(np.argsort(-steps.biased)[1])
    dropped = second not in steps.chosen and second // (len(steps.biased) // len(steps.best)) not in steps.kept
    pair = _overtaken(steps.biased, steps.bias)
    return dropped, pair is not None, steps.chosen != steps.without, pair[2] if pair else 0.0


def _overtaken(biased: np.ndarray, bias: np.ndarray) -> tuple[int, int, float] | None:
    """Of the six highest experts those two of which the bias puts the first above the second most visibly, and the smaller of
    their distances before and after."""
    scores = biased - bias
    pairs = [
        (int(a), int(b), float(min(scores[b] - scores[a], biased[a] - biased[b])))
        for a, b in combinations(np.argsort(-biased)[:6], 2)
        if scores[a] < scores[b]
    ]
    return max(pairs, key=lambda pair: pair[2], default=None)


def _loads(trained: Trained, block: int) -> Rows:
    """How often each expert was chosen by the first n tokens of all domains, by turns, in even shares."""
    c, domains = trained.model.config, trained.held_out.domains
    each = -(-LOADS[-1] // len(domains))
    chosen = [trained.routings(trained.window(d, min(each, 128), -(-each // 128)))[block].chosen[:each] for d in domains]
    mixed = np.stack(chosen, axis=1).reshape(-1, c.num_experts_per_tok)  # (tokens, K): a token of each domain in turn
    rows: Rows = []
    for n in LOADS:
        counts = np.bincount(mixed[:n].reshape(-1), minlength=c.n_routed_experts)
        even = n * c.num_experts_per_tok / c.n_routed_experts
        rows += [{"after": n, "expert": e, "load": float(count / even)} for e, count in enumerate(counts)]
    return rows


class _Stage:
    """A slide with its title and the bars of all experts of the token, in groups, each at a height of the caller's choice."""

    def __init__(self, slide: Slide, rows: Rows, right: float = RIGHT):
        self.slide, self.line, self.experts = slide, slide.line, [row for row in rows if "score" in row]
        self.chosen, self.groups = only(self.experts, chosen=True), {row["group"]: row["group_score"] for row in self.experts}
        self.kept = {row["group"] for row in self.experts if row["group_kept"]}
        self.lift = float(np.mean(column(self.experts, "bias")))  # taken from each bias
        self.second = sorted(self.experts, key=lambda row: -row["score"] - row["bias"])[1]
        finding = f"{len(self.experts)} experts, {len(self.kept)} of {len(self.groups)} groups, {len(self.chosen)} gates"
        if not self.second["chosen"] and not self.second["group_kept"]:
            rank = sorted(self.groups, key=lambda g: -self.groups[g]).index(self.second["group"])
            place = {1: "second", 2: "third", 3: "fourth"}.get(rank, "last")
            finding = f"The second-best expert is not chosen: its group came {place}"
        about = f"Layer {rows[0]['block']}, the last token of “{rows[0]['quote']}”"
        self.top = slide.title(finding, rows[0]["model"], about)
        left = LEFT + slide.width_of(("score + bias", "group score"), 18, True) + 0.25
        unit = (right - left) / (len(self.experts) + 0.5 * (len(self.groups) - 1))
        self.wide = 0.8 * unit
        self.x = {row["expert"]: left + unit * (row["expert"] + 0.5 * row["group"] + 0.1) for row in self.experts}
        self.end = max(self.x.values()) + self.wide

    def name(self, y: float, name: str, *meaning: str) -> None:
        flat = self.slide.letters > 1.2 and not self.slide.tall
        lines = [(one, 16, "muted") for one in meaning if not flat]
        self.slide.lines(LEFT, y, (name, 18, "ink", "bold"), *lines, down=1.3)

    def across(self, y: float, width: float = 1.4, kind: str = "muted") -> None:
        self.slide.arrow((self.x[0] - 0.1, y), (self.end + 0.1, y), head=False, width=width, kind=kind)

    def bar(self, expert: int, y: float, high: float, kind: str = "query", words: str = "", **looks) -> None:
        self.slide.rectangle(self.x[expert], y, self.wide, high, kind, **looks)
        if words:
            size = self.slide.fit(words, 16, 1.2 * self.wide)  # bars are 1.25 apart
            self.slide.text(self.x[expert] + self.wide / 2, y + high + 0.2 * self.slide.letters, words, size, ha="center")

    def numbers(self, y: float) -> None:
        self.slide.text(LEFT, y, "expert", 16, "muted")
        every = 2 if 1.25 * self.wide < self.slide.width_of("15", 16) + 0.08 else 1
        for expert in range(0, len(self.x), every):
            self.slide.text(self.x[expert] + self.wide / 2, y, str(expert), 16, ha="center")

    def unit(self, high: float) -> float:
        """Height of a score of 1 where the highest bar is ``high``."""
        return high / max(max(row["score"], row["score"] + row["bias"] - self.lift) for row in self.experts)

    def bars(self, y: float, unit: float, judged: int = 2, grow: float = 1.0, bias: float = 1.0) -> None:
        """Scores, and on them what the bias adds (in ink) or takes away (hatched) against its mean. ``judged`` 1: dropped
        groups are dark; 2: the chosen experts are lit."""
        for row in self.experts:
            expert, score = row["expert"], row["score"] * grow
            tip = max(0, score + (row["bias"] - self.lift) * bias)
            self.bar(expert, y, score * unit, "query" if judged == 2 and row["chosen"] else self.shade(row["group"], judged))
            if tip > score:
                self.bar(expert, y + score * unit, (tip - score) * unit, "ink")
            elif tip < score:
                self.bar(expert, y + tip * unit, (score - tip) * unit, "background", edge="ink", hatch="////")

    def shade(self, group: int, judged: int) -> str:
        return tint(colour("routed"), 0.75) if group in self.kept or not judged else colour("other")

    def gates(self, y: float, unit: float, share: float = 1.0) -> None:
        digits = 1 if self.slide.width_of("0.00", 16) > 1.2 * self.wide else 2
        for row in self.chosen:
            words = f"{row['gate']:.{digits}f}" if share == 1 else ""
            self.bar(row["expert"], y, row["gate"] * share * unit, words=words)

    def sums(self, y: float, high: float, judged: int = 2) -> None:
        """Each group's score in a block as wide as the group, and what it is."""
        for g, score in self.groups.items():
            places = [self.x[row["expert"]] for row in only(self.experts, group=g)]
            wide = places[-1] + self.wide - places[0]
            self.slide.box(places[0], y, wide, high, f"{score:.2f}", fill=self.shade(g, judged), round=0.08)
        self.name(y + high / 2, "group score", "its two best")

    def mark_second(self, y: float, unit: float) -> None:
        """Marks the second-best expert where it is not chosen."""
        if not self.second["chosen"]:
            x, reach = self.x[self.second["expert"]], (self.slide.width_of("second best", 17, True) + self.wide) / 2
            under = [row for row in self.experts if abs(self.x[row["expert"]] - x) < reach]
            tip = y + max(row["score"] + max(0, row["bias"] - self.lift) for row in under) * unit + 0.55 * self.line
            self.slide.text(x + self.wide / 2, tip, "second best", 17, ha="center", weight="bold")


# The film. A moment is (part, share of the part that is over).

PARTS = {  # name → frames, milliseconds of each, milliseconds of the last
    "scores": (9, 80, 900), "bias": (8, 90, 1400), "groups": (1, 0, 1400), "dropped": (1, 0, 2600), "gates": (7, 100, 1400),
    "shared": (1, 0, 1200), "next": (SHOWN // 2, 110, 400), "load": (len(LOADS), 180, 2200),
}  # fmt: skip


def _moments(rows: Rows) -> list[tuple[tuple[str, float], int]]:
    shares = {part: [(part, (i + 1) / frames) for i in range(frames)] for part, (frames, *_) in PARTS.items()}
    return [moment for part, (_, each, last) in PARTS.items() for moment in in_turn(shares[part], each, last)]


def _draw_moment(slide: Slide, rows: Rows, moment: tuple[str, float]) -> None:
    (part, share), at = moment, [*PARTS].index(moment[0])
    stage = _Stage(slide, rows, RIGHT - 1.3 * bool(rows[0]["shared"]))
    line, low = stage.line, 0.25 + 3.6 * stage.line
    loads = only(rows, after=LOADS[max(1, round(share * len(LOADS))) - 1])  # after so many tokens, in the last part
    top = slide.note(_said(stage, loads, part), stage.top - 0.35 * line, 20, "ink", "top", weight="bold")
    high, room = top - 0.4 * line, top - 1.6 * line - low
    unit, one = stage.unit(room), 0.9 * room / max(column(stage.experts, "gate"))  # heights of a score and a gate of 1
    stage.numbers(low - 0.6 * line)
    if part == "next":  # their choices, a line each
        shown, step = [row for row in rows if row.get("next", SHOWN) < round(share * SHOWN)], (high - low) / SHOWN
        for row in shown:
            stage.bar(row["expert"], high - step * (row["next"] + 0.9), 0.8 * step)
        letters = [*{row["next"]: row["token"] for row in shown}.values()]
        for i in range(0, len(letters), max(1, round(1.1 * line / step))):  # so many lines to a letter
            slide.verbatim(LEFT + 0.4, high - step * (i + 0.5), letters[i], 16, family=MONO)
    elif part == "load":  # up to four times an even one
        even = (high - low) / 4
        for row in loads:
            stage.bar(row["expert"], low, min(row["load"], 4) * even)
        stage.across(low + even, 2, "ink")
        slide.text(stage.end + 0.2, low + even, "1", 16)
        stage.name((low + high) / 2, "load", "in even", "shares")
    elif at < 4:
        stage.bars(low, unit, at // 3, share if at == 0 else 1.0, share if at == 1 else min(at, 1.0))
        stage.name(low + room / 2, "score" if at == 0 else "score + bias")
    else:
        if part == "gates" and share < 1:
            stage.bars(low, unit, 2, 1 - share, 0)
        stage.gates(low, one, share if part == "gates" else 1.0)
        stage.name(low + room / 2, "gate")
    if part == "dropped":
        stage.mark_second(low, unit)
    if part == "shared":
        place = slide.rectangle(RIGHT - stage.wide - 0.15, low, stage.wide, one, "shared")
        slide.text(place.middle[0], low + one + 0.25 * slide.letters, "1", 16, ha="center")
        slide.text(RIGHT + 0.1, low - 0.6 * line, "shared", 16, ha="right")
    if part != "next":
        stage.across(low)
    if 2 <= at < 6:
        stage.sums(low - 3.1 * line, 1.5 * line, min(at - 2, 2))


def _said(stage: _Stage, loads: Rows, part: str) -> str:
    """What happens, in a sentence."""
    scores, bias = (np.array(column(stage.experts, name)) for name in ("score", "bias"))
    pair, second, busiest = _overtaken(scores + bias, bias), stage.second, max(column(loads, "load"))
    gone = ", the others go dark" if second["group_kept"] else f"; expert {second['expert']} goes dark with its group"
    return {
        "scores": f"The token gives each of {len(stage.experts)} experts a score",
        "bias": "The bias is added" + (f": expert {pair[0]} overtakes expert {pair[1]}" if pair else ""),
        "groups": "Groups compete with the sum of their two best",
        "dropped": f"The {len(stage.kept)} best groups stay{gone}",
        "gates": f"The {len(stage.chosen)} best that are left get gates; the bias is out again",
        "shared": "The shared expert is always on",
        "next": "The next tokens choose others",
        "load": f"After {loads[0]['after']:,} tokens of all domains the busiest expert has {busiest:.1f} times its share",
    }[part]


@picture(9, _rows, source="run", film=Film(_moments, _draw_moment))
def one_token_routed(slide: Slide, rows: Rows) -> None:
    """One token in the router of the trained model: scores and bias, group scores, the experts chosen, and their gates.

    Three rows over the same experts, which stand in groups. First bars, the scores, with what the bias adds to them in ink
    or takes from them hatched, the second highest marked; then one wide block per group with its score, the dropped ones in
    grey; then bars only at the chosen experts, their gates. The film shows one step after the other, then the choices of the
    next tokens, and how the load of all experts evens out.
    """
    stage, line = _Stage(slide, rows), slide.line
    kinds = [("chosen", "query"), ("group stays", tint(colour("routed"), 0.75)), ("dropped", "other")]
    low = slide.legend(LEFT, 0.3 * slide.letters, [*kinds, ("bias above its mean, hatched: below", "ink")]) + 1.6 * line
    block, gates = 1.5 * line, column(stage.experts, "gate")
    room = stage.top - low - block - 3.6 * line
    scores, unit = low + 0.42 * room + block + 2 * line, stage.unit(0.58 * room)
    stage.name(scores + 0.25 * room, "score + bias", "bias less its", "mean")
    stage.bars(scores, unit)
    stage.across(scores)
    stage.mark_second(scores, unit)
    slide.step("groups")
    stage.sums(scores - block - 0.35 * line, block)
    slide.step("gates")
    stage.gates(low, 0.36 * room / max(gates))
    stage.across(low)
    stage.name(low + 0.2 * room, "gate", f"adds up to {sum(gates):.3g}")
    stage.numbers(low - 0.6 * line)
