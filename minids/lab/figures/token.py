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
    c, domains = trained.model.config, trained.held_out.domains
    blocks = trained.moe_blocks() if block is None else [block]
    found = []  # (how good a story, domain, block, token)
    for d in [domain] if domain else domains:
        for b, routing in trained.routings(trained.window(d, length)).items():
            if b in blocks:
                found += [(_story(_steps(trained, b, routing.scores[n])), d, b, n) for n in range(8, length)]
    _, domain, block, n = max(found, key=lambda one: one[0])
    tokens = trained.window(domain, length)
    routing = trained.routings(tokens)[block]
    steps = _steps(trained, block, routing.scores[n])
    gates = dict(zip(routing.chosen[n].tolist(), routing.gates[n].tolist(), strict=True))
    *before, token = trained.letters(tokens[0, max(0, n - 8) : n + 1])
    about = {"block": block, "quote": "".join(before) + token, "domain": domain, "shared": c.n_shared_experts}
    size = c.n_routed_experts // c.n_group
    rows: Rows = []
    for e in range(c.n_routed_experts):
        row = about | {"expert": e, "group": e // size, "score": float(routing.scores[n, e]), "bias": float(steps.bias[e])}
        row |= {"group_score": float(steps.best[e // size]), "group_kept": e // size in steps.kept, "chosen": e in gates}
        rows.append(row | {"chosen_without_bias": bool(e in steps.without), "gate": gates.get(e, 0.0)})
    letters = trained.letters(tokens[0, n + 1 : n + 1 + SHOWN])
    for i, letter in enumerate(letters):
        at = routing.chosen[n + 1 + i].tolist()
        rows += [
            {"next": i, "token": letter, "expert": e, "gate": g}
            for e, g in zip(at, routing.gates[n + 1 + i].tolist(), strict=True)
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
    biased = scores + bias
    grouped = biased.reshape(c.n_group, -1)
    best = np.sort(grouped, axis=1)[:, -2:].sum(axis=1) if c.topk_method == "noaux_tc" else grouped.max(axis=1)
    allowed = c.n_group if c.topk_method == "greedy" else c.topk_group
    kept = set(np.argsort(-best, kind="stable")[:allowed].tolist())
    return _Steps(biased, bias, best, kept, chosen, without)


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
    rank: int  # of its group
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
    return _Told(experts, float(np.mean(column(experts, "bias"))), second, rank, finding, text)


class _Stage:
    """The bars of all experts on a slide, in groups, each piece at a place that the caller chooses."""

    def __init__(self, slide: Slide, told: _Told, shared: bool):
        self.slide, self.told, self.line = slide, told, slide.line
        count, groups = len(told.experts), distinct(told.experts, "group")
        self.groups = groups
        left, right = LEFT + slide.width_of("score + bias", 18, True) + 0.3, RIGHT - (1.3 if shared else 0)
        unit = (right - left) / (count + 0.5 * (len(groups) - 1))
        self.wide = 0.8 * unit
        self.x = {row["expert"]: left + unit * (row["expert"] + 0.5 * row["group"] + 0.1) for row in told.experts}
        self.shared_x = RIGHT - self.wide - 0.15

    def name(self, y: float, name: str, *meaning: str) -> None:
        flat = self.slide.letters > 1.2 and not self.slide.tall
        lines = [(one, 16, "muted") for one in meaning if not flat]
        self.slide.lines(LEFT, y, (name, 18, "ink", "bold"), *lines, down=1.3)

    def floor(self, y: float) -> None:
        self.slide.arrow((self.x[0] - 0.1, y), (max(self.x.values()) + self.wide + 0.1, y), head=False, width=1.4)

    def numbers(self, y: float) -> None:
        self.slide.text(LEFT, y, "expert", 16, "muted")
        tight = 1.25 * self.wide < self.slide.width_of("15", 16) + 0.08
        for expert, x in self.x.items():
            if not (tight and expert % 2):
                self.slide.text(x + self.wide / 2, y, str(expert), 16, ha="center")

    def bars(self, y: float, unit: float, dark: set, lit: set, grow: float = 1.0, bias: float = 1.0) -> None:
        """Scores, and on them what the bias adds (in ink) or takes away (an outline) against the mean bias."""
        for row in self.told.experts:
            x, score = self.x[row["expert"]], row["score"] * grow
            tip = max(0, score + (row["bias"] - self.told.lift) * bias)
            looks = dict(fill="ink") if tip > score else dict(fill="background", edge="ink", hatch="////")
            self.slide.rectangle(x, y, self.wide, score * unit, self.shade(row, dark, lit))
            if tip != score:
                self.slide.rectangle(x, y + min(tip, score) * unit, self.wide, abs(tip - score) * unit, **looks)

    def shade(self, row: dict, dark: set, lit: set | frozenset = frozenset()) -> str:
        if row.get("expert") in lit:
            return colour("query")
        return colour("other") if row["group"] in dark else tint(colour("routed"), 0.75)

    def gates(self, y: float, unit: float, share: float = 1.0) -> None:
        for row in only(self.told.experts, chosen=True):
            x = self.x[row["expert"]]
            self.slide.rectangle(x, y, self.wide, row["gate"] * share * unit, "query")
            if share == 1:
                said = f"{row['gate']:.{1 if self.slide.width_of('0.00', 16) > 1.5 * self.wide else 2}f}"
                self.slide.text(x + self.wide / 2, y + row["gate"] * unit + 0.2 * self.slide.letters, said, 16, ha="center")

    def sums(self, y: float, high: float, dark: set) -> None:
        """Each group's score in a block as wide as the group."""
        for g in self.groups:
            mine = only(self.told.experts, group=g)
            left, fill = self.x[mine[0]["expert"]], self.shade({"group": g}, dark)
            wide = self.x[mine[-1]["expert"]] + self.wide - left
            self.slide.box(left, y, wide, high, f"{mine[0]['group_score']:.2f}", fill=fill, round=0.08)


def _unit(told: _Told, high: float) -> float:
    """Height of a score of 1."""
    return high / max(max(row["score"], row["score"] + row["bias"] - told.lift) for row in told.experts)


def _mark_second(slide: Slide, stage: _Stage, told: _Told, y: float, unit: float) -> None:
    row = told.second
    if row["chosen"]:
        return
    x, tip = stage.x[row["expert"]] + stage.wide / 2, y + (row["score"] + max(0, row["bias"] - told.lift)) * unit
    slide.text(x, tip + 0.62 * stage.line, "second best", 17, ha="center", weight="bold")


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
    part, share = moment
    told = _told(rows)
    at = [name for name, *_ in PARTS].index(part)
    first = told.experts[0]
    top = slide.title(told.finding, first["model"], told.text)
    stage = _Stage(slide, told, shared=bool(first["shared"]))
    line = stage.line
    dark = {row["group"] for row in told.experts if not row["group_kept"]} if at >= 3 else set()
    lit = {row["expert"] for row in told.experts if row["chosen"]} if at >= 4 else set()
    said = (
        _said(told, part)
        if part != "load"
        else (
            f"After {(mine := _after(rows, share))[0]['after']:,} tokens of all domains the busiest expert has "
            f"{max(row['load'] for row in mine):.1f} times its share"
        )
    )
    top = slide.paragraph(top - 0.35 * line, said, 20, weight="bold")
    low = 0.25 + 3.6 * line
    if at >= 6:
        _many(slide, stage, rows, part, share, low, top - 0.4 * line)
    else:
        room = top - 1.6 * line - low
        unit = _unit(told, room)
        if at < 4:
            stage.bars(low, unit, dark, lit, share if at == 0 else 1.0, 0 if at == 0 else share if at == 1 else 1.0)
        if at == 3:
            _mark_second(slide, stage, told, low, unit)
        one = 0.9 * room / max(row["gate"] for row in told.experts)  # height of a gate of 1
        if part == "gates" and share < 1:
            stage.bars(low, unit, dark, lit, 1 - share, 0)
        if at >= 4:
            stage.gates(low, one, share if at == 4 else 1.0)
        if at >= 5:
            slide.rectangle(stage.shared_x, low, stage.wide, one, "shared")
            slide.text(stage.shared_x + stage.wide / 2, low + one + 0.25 * slide.letters, "1", 16, ha="center")
            slide.text(RIGHT + 0.1, low - 0.6 * line, "shared", 16, ha="right")
        stage.floor(low)
        stage.name(low + room / 2, "gate" if at >= 4 else "score" if at == 0 else "score + bias")
    stage.numbers(low - 0.6 * line)
    if 2 <= at <= 5:
        stage.sums(low - 3.1 * line, 1.5 * line, dark)
        stage.name(low - 2.35 * line, "group score", "its two best")


def _said(told: _Told, part: str) -> str:
    """What happens, in a sentence."""
    experts = told.experts
    biased, bias = (np.array([row[k] for row in experts]) for k in ("score", "bias"))
    pair = _overtaken(biased + bias, bias)
    chosen = only(experts, chosen=True)
    kept = len({row["group"] for row in experts if row["group_kept"]})
    return {
        "scores": f"The token gives each of {len(experts)} experts a score",
        "bias": f"The bias is added: expert {pair[0]} overtakes expert {pair[1]}" if pair else "The bias is added",
        "groups": "Groups compete with the sum of their two best",
        "dropped": f"The {kept} best groups stay; expert {told.second['expert']} goes dark with its group"
        if not told.second["group_kept"] else f"The {kept} best groups stay, the others go dark",
        "gates": f"The {len(chosen)} best that are left get gates; the bias is out again",
        "shared": "The shared expert is always on",
        "next": "The next tokens choose others",
    }[part]  # fmt: skip


def _after(rows: Rows, share: float) -> Rows:
    """The loads after as many tokens as are counted when ``share`` of the film's last part is over."""
    return only(rows, after=LOADS[round(share * len(LOADS)) - 1])


def _many(slide: Slide, stage: _Stage, rows: Rows, part: str, share: float, low: float, high: float) -> None:
    """Choices of the next tokens, a line each; or the load after more and more."""
    if part == "next":
        shown = [row for row in rows if "next" in row and row["next"] < round(share * SHOWN)]
        step = (high - low) / SHOWN
        for row in shown:
            y = high - step * (row["next"] + 1)
            slide.rectangle(stage.x[row["expert"]], y + 0.1 * step, stage.wide, 0.8 * step, "query")
        for i in range(0, SHOWN, max(1, round(1.1 * stage.line / step))):
            mine = [row for row in shown if row["next"] == i]
            if mine:
                slide.verbatim(LEFT + 0.4, high - step * (i + 0.5), mine[0]["token"], 16, family="DejaVu Sans Mono")
        return
    mine, top = _after(rows, share), 4.0
    unit = (high - low) / top
    for row in mine:
        slide.rectangle(stage.x[row["expert"]], low, stage.wide, min(row["load"], top) * unit, "query")
    left, right = stage.x[0] - 0.1, max(stage.x.values()) + stage.wide + 0.1
    slide.arrow((left, low + unit), (right, low + unit), kind="ink", head=False, width=2)
    slide.text(right + 0.1, low + unit, "1", 16)
    stage.floor(low)
    stage.name((low + high) / 2, "load", "in even", "shares")


@picture(9, _rows, source="run", film=Film(_moments, _draw_moment))
def one_token_routed(slide: Slide, rows: Rows) -> None:
    """One token in the router of the trained model: scores and bias, group scores, the experts chosen, and their gates.

    Three rows over the same experts, which stand in groups. First bars, the scores, with what the bias adds to them in ink
    or takes from them hatched, the second highest marked; then one wide block per group with its score, the dropped ones in
    grey; then bars only at the chosen experts, their gates. The film shows one step after the other, then the choices of
    the next tokens, and how the load of all experts evens out.
    """
    told = _told(rows)
    top = slide.title(told.finding, told.experts[0]["model"], told.text)
    stage = _Stage(slide, told, shared=False)
    line = stage.line
    dark = {row["group"] for row in told.experts if not row["group_kept"]}
    lit = {row["expert"] for row in told.experts if row["chosen"]}
    kept = tint(colour("routed"), 0.75)
    kinds = [("chosen", "query"), ("group stays", kept), ("dropped", "other"), ("bias above its mean, hatched: below", "ink")]
    low, block = slide.legend(LEFT, 0.3 * slide.letters, kinds) + 1.6 * line, 1.5 * line
    room = top - low - block - 3.6 * line
    scores = low + 0.42 * room + block + 2 * line
    unit = _unit(told, 0.58 * room)
    stage.name(scores + 0.25 * room, "score + bias", "bias less its", "mean")
    stage.bars(scores, unit, dark, lit)
    stage.floor(scores)
    _mark_second(slide, stage, told, scores, unit)
    slide.step("groups")
    stage.sums(scores - block - 0.35 * line, block, dark)
    stage.name(scores - block / 2 - 0.35 * line, "group score", "its two best")
    slide.step("gates")
    stage.gates(low, 0.36 * room / max(row["gate"] for row in told.experts))
    stage.floor(low)
    stage.name(low + 0.2 * room, "gate", f"adds up to {sum(row['gate'] for row in told.experts):.3g}")
    stage.numbers(low - 0.6 * line)
