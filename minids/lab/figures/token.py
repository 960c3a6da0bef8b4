"""Figure 9: how the router of a trained model chooses for one token; as a film, step by step, and then for many tokens."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from minids.lab.figures.film import Film
from minids.lab.figures.picture import Rows, column, distinct, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Slide
from minids.lab.figures.style import colour, tint
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
    about = {"block": block, "quote": read, "domain": domain, "shared": c.n_shared_experts}
    rows: Rows = [
        about
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
    order, scores = np.argsort(-biased)[:6], biased - bias
    pairs = [
        (int(a), int(b), float(min(scores[b] - scores[a], biased[a] - biased[b])))
        for i, a in enumerate(order)
        for b in order[i + 1 :]
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


class _Told(NamedTuple):
    """What the picture says of the token."""

    experts: Rows
    lift: float  # taken from each bias: their mean, or what keeps all above zero
    second: dict  # the second highest expert
    finding: str
    text: str


def _told(rows: Rows) -> _Told:
    experts = [row for row in rows if "score" in row]
    groups = {row["group"]: row["group_score"] for row in experts}
    order = sorted(experts, key=lambda row: -row["score"] - row["bias"])
    second, ranked = order[1], sorted(groups, key=lambda g: -groups[g])
    rank, chosen = ranked.index(second["group"]), only(experts, chosen=True)
    kept = len({row["group"] for row in experts if row["group_kept"]})
    finding = f"{len(experts)} experts, {kept} of {len(groups)} groups, {len(chosen)} gates"
    if not second["chosen"] and not second["group_kept"]:
        place = {1: "second", 2: "third", 3: "fourth"}.get(rank, "last")
        finding = f"The second-best expert is not chosen: its group came {place}"
    text = f"Layer {experts[0]['block']}, the last token of “{experts[0]['quote']}”"
    return _Told(experts, float(np.mean(column(experts, "bias"))), second, finding, text)


class _Stage:
    """The bars of all experts on a slide, in groups, each piece at a place that the caller chooses."""

    def __init__(self, slide: Slide, told: _Told, shared: bool = False):
        self.slide, self.told, self.line = slide, told, slide.line
        count, self.groups = len(told.experts), distinct(told.experts, "group")
        left, right = LEFT + slide.width_of(("score + bias", "group score"), 18, True) + 0.25, RIGHT - (1.3 if shared else 0)
        unit = (right - left) / (count + 0.5 * (len(self.groups) - 1))
        self.wide = 0.8 * unit
        self.x = {row["expert"]: left + unit * (row["expert"] + 0.5 * row["group"] + 0.1) for row in told.experts}
        self.end = max(self.x.values()) + self.wide
        self.lit = set(column(only(told.experts, chosen=True), "expert"))
        self.kept = {row["group"] for row in told.experts if row["group_kept"]}

    def name(self, y: float, name: str, *meaning: str) -> None:
        flat = self.slide.letters > 1.2 and not self.slide.tall
        lines = [(one, 16, "muted") for one in meaning if not flat]
        self.slide.lines(LEFT, y, (name, 18, "ink", "bold"), *lines, down=1.3)

    def across(self, y: float, width: float = 1.4, kind: str = "muted") -> None:
        self.slide.arrow((self.x[0] - 0.1, y), (self.end + 0.1, y), head=False, width=width, kind=kind)

    def bar(self, expert: int, y: float, high: float, kind: str = "query", words: str = "") -> None:
        self.slide.rectangle(self.x[expert], y, self.wide, high, kind)
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
        return high / max(max(row["score"], row["score"] + row["bias"] - self.told.lift) for row in self.told.experts)

    def bars(self, y: float, unit: float, judged: int = 2, grow: float = 1.0, bias: float = 1.0) -> None:
        """Scores, and on them what the bias adds (in ink) or takes away (hatched) against its mean. ``judged`` 1: dropped
        groups are dark; 2: the chosen experts are lit."""
        for row in self.told.experts:
            x, score = self.x[row["expert"]], row["score"] * grow
            tip = max(0, score + (row["bias"] - self.told.lift) * bias)
            looks = dict(fill="ink") if tip > score else dict(fill="background", edge="ink", hatch="////")
            lit = judged == 2 and row["expert"] in self.lit
            self.bar(row["expert"], y, score * unit, "query" if lit else self.shade(row["group"], judged))
            if tip != score:
                self.slide.rectangle(x, y + min(tip, score) * unit, self.wide, abs(tip - score) * unit, **looks)

    def shade(self, group: int, judged: int) -> str:
        return tint(colour("routed"), 0.75) if group in self.kept or not judged else colour("other")

    def gates(self, y: float, unit: float, share: float = 1.0) -> None:
        digits = 1 if self.slide.width_of("0.00", 16) > 1.2 * self.wide else 2
        for row in only(self.told.experts, chosen=True):
            words = f"{row['gate']:.{digits}f}" if share == 1 else ""
            self.bar(row["expert"], y, row["gate"] * share * unit, words=words)

    def sums(self, y: float, high: float, judged: int = 2) -> None:
        """Each group's score in a block as wide as the group, and what it is."""
        for g in self.groups:
            mine = only(self.told.experts, group=g)
            left, right = self.x[mine[0]["expert"]], self.x[mine[-1]["expert"]] + self.wide
            words, fill = f"{mine[0]['group_score']:.2f}", self.shade(g, judged)
            self.slide.box(left, y, right - left, high, words, fill=fill, round=0.08)
        self.name(y + high / 2, "group score", "its two best")

    def second(self, y: float, unit: float) -> None:
        """Marks the second-best expert where it is not chosen."""
        row = self.told.second
        if not row["chosen"]:
            x, reach = self.x[row["expert"]], (self.slide.width_of("second best", 17, True) + self.wide) / 2
            under = [r for r in self.told.experts if abs(self.x[r["expert"]] - x) < reach]
            tip = y + max(r["score"] + max(0, r["bias"] - self.told.lift) for r in under) * unit + 0.55 * self.line
            self.slide.text(x + self.wide / 2, tip, "second best", 17, ha="center", weight="bold")


# The film. A moment is (part, share of the part that is over).

PARTS = (  # name, frames, milliseconds of each, milliseconds of the last
    ("scores", 9, 80, 900), ("bias", 8, 90, 1400), ("groups", 1, 0, 1400), ("dropped", 1, 0, 2600), ("gates", 7, 100, 1400),
    ("shared", 1, 0, 1200), ("next", SHOWN // 2, 110, 400), ("load", len(LOADS), 180, 2200),
)  # fmt: skip


def _moments(rows: Rows) -> list[tuple[tuple[str, float], int]]:
    return [
        ((part, (i + 1) / frames), last if i + 1 == frames else each)
        for part, frames, each, last in PARTS
        for i in range(frames)
    ]


def _draw_moment(slide: Slide, rows: Rows, moment: tuple[str, float]) -> None:
    (part, share), told = moment, _told(rows)
    at = [name for name, *_ in PARTS].index(part)
    top = slide.title(told.finding, told.experts[0]["model"], told.text)
    stage = _Stage(slide, told, shared=bool(told.experts[0]["shared"]))
    line, low = stage.line, 0.25 + 3.6 * stage.line
    top = slide.note(_said(rows, told, part, share), top - 0.35 * line, 20, "ink", "top", weight="bold")
    room = top - 1.6 * line - low
    unit, one = stage.unit(room), 0.9 * room / max(row["gate"] for row in told.experts)  # heights of a score and a gate of 1
    stage.numbers(low - 0.6 * line)
    if part == "next":
        _next(stage, rows, share, low, top - 0.4 * line)
        return
    if part == "load":
        _load(stage, rows, share, low, top - 0.4 * line)
        return
    if at < 4:
        stage.bars(low, unit, at // 3, share if at == 0 else 1.0, share if at == 1 else min(at, 1.0))
    if part == "dropped":
        stage.second(low, unit)
    if part == "gates" and share < 1:
        stage.bars(low, unit, 2, 1 - share, 0)
    if at >= 4:
        stage.gates(low, one, share if at == 4 else 1.0)
    if part == "shared":
        x = RIGHT - stage.wide - 0.15
        slide.rectangle(x, low, stage.wide, one, "shared")
        slide.text(x + stage.wide / 2, low + one + 0.25 * slide.letters, "1", 16, ha="center")
        slide.text(RIGHT + 0.1, low - 0.6 * line, "shared", 16, ha="right")
    stage.across(low)
    stage.name(low + room / 2, "gate" if at >= 4 else "score" if at == 0 else "score + bias")
    if at >= 2:
        stage.sums(low - 3.1 * line, 1.5 * line, min(at - 2, 2))


def _said(rows: Rows, told: _Told, part: str, share: float) -> str:
    """What happens, in a sentence."""
    experts = told.experts
    biased, bias = (np.array([row[k] for row in experts]) for k in ("score", "bias"))
    pair, mine = _overtaken(biased + bias, bias), _after(rows, share)
    kept = len({row["group"] for row in experts if row["group_kept"]})
    gone = "the others go dark" if told.second["group_kept"] else f"expert {told.second['expert']} goes dark with its group"
    return {
        "scores": f"The token gives each of {len(experts)} experts a score",
        "bias": "The bias is added" + (f": expert {pair[0]} overtakes expert {pair[1]}" if pair else ""),
        "groups": "Groups compete with the sum of their two best",
        "dropped": f"The {kept} best groups stay" + ("; " if "expert" in gone else ", ") + gone,
        "gates": f"The {len(only(experts, chosen=True))} best that are left get gates; the bias is out again",
        "shared": "The shared expert is always on",
        "next": "The next tokens choose others",
        "load": f"After {mine[0]['after']:,} tokens of all domains the busiest expert has "
        f"{max(row['load'] for row in mine):.1f} times its share",
    }[part]


def _after(rows: Rows, share: float) -> Rows:
    """The loads after as many tokens as are counted when ``share`` of the film's last part is over."""
    return only(rows, after=LOADS[max(1, round(share * len(LOADS))) - 1])


def _next(stage: _Stage, rows: Rows, share: float, low: float, high: float) -> None:
    """Choices of the next tokens, a line each."""
    shown, step = [row for row in rows if row.get("next", SHOWN) < round(share * SHOWN)], (high - low) / SHOWN
    every = max(1, round(1.1 * stage.line / step))  # so many lines to a letter
    for row in shown:
        stage.bar(row["expert"], high - step * (row["next"] + 0.9), 0.8 * step)
    for i in range(0, len(distinct(shown, "next")), every):
        letter = only(shown, next=i)[0]["token"]
        stage.slide.verbatim(LEFT + 0.4, high - step * (i + 0.5), letter, 16, family="DejaVu Sans Mono")


def _load(stage: _Stage, rows: Rows, share: float, low: float, high: float) -> None:
    """The load after more and more tokens, up to four times an even one."""
    unit = (high - low) / 4
    for row in _after(rows, share):
        stage.bar(row["expert"], low, min(row["load"], 4) * unit)
    stage.across(low + unit, 2, "ink")
    stage.slide.text(stage.end + 0.2, low + unit, "1", 16)
    stage.across(low)
    stage.name((low + high) / 2, "load", "in even", "shares")


@picture(9, _rows, source="run", film=Film(_moments, _draw_moment))
def one_token_routed(slide: Slide, rows: Rows) -> None:
    """One token in the router of the trained model: scores and bias, group scores, the experts chosen, and their gates.

    Three rows over the same experts, which stand in groups. First bars, the scores, with what the bias adds to them in ink
    or takes from them hatched, the second highest marked; then one wide block per group with its score, the dropped ones in
    grey; then bars only at the chosen experts, their gates. The film shows one step after the other, then the choices of the
    next tokens, and how the load of all experts evens out.
    """
    told = _told(rows)
    top = slide.title(told.finding, told.experts[0]["model"], told.text)
    stage, line, gates = _Stage(slide, told), slide.line, column(told.experts, "gate")
    kinds = [("chosen", "query"), ("group stays", tint(colour("routed"), 0.75)), ("dropped", "other")]
    kinds.append(("bias above its mean, hatched: below", "ink"))
    low, block = slide.legend(LEFT, 0.3 * slide.letters, kinds) + 1.6 * line, 1.5 * line
    room = top - low - block - 3.6 * line
    scores, unit = low + 0.42 * room + block + 2 * line, stage.unit(0.58 * room)
    stage.name(scores + 0.25 * room, "score + bias", "bias less its", "mean")
    stage.bars(scores, unit)
    stage.across(scores)
    stage.second(scores, unit)
    slide.step("groups")
    stage.sums(scores - block - 0.35 * line, block)
    slide.step("gates")
    stage.gates(low, 0.36 * room / max(gates))
    stage.across(low)
    stage.name(low + 0.2 * room, "gate", f"adds up to {sum(gates):.3g}")
    stage.numbers(low - 0.6 * line)
