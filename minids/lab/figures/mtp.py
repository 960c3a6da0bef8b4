"""Figure 15: multi-token prediction as a causal chain, with what each output really depends on measured on a model."""

import numpy as np

from minids.backend import use_backend
from minids.config import ModelConfig
from minids.lab.figures.picture import Rows, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Slide
from minids.model import DeepSeekV3

TEXT = ("The", "latent", "is", "all", "that", "is", "cached")


def _rows(text: tuple[str, ...] = TEXT, depths: int = 1, config: ModelConfig | None = None, seed: int = 0) -> Rows:
    """``text``: the words; ``depths``: MTP modules; ``config``: the model asked, by default the tiny preset with these modules.

    What an output depends on is not drawn from the paper but found out: each word is exchanged in turn, and the outputs that
    change are noted.
    """
    config = config or ModelConfig.preset("tiny").replace(num_hidden_layers=2, num_nextn_predict_layers=depths)
    model = DeepSeekV3(config, seed, np.float64)
    before = np.arange(len(text))[None]  # (1, T): the words' numbers
    outputs = _outputs(model, before)
    changed: list[list] = [[] for _ in outputs]
    for place in range(len(text)):
        other = before.copy()
        other[0, place] = len(text)
        for depth, (a, b) in enumerate(zip(outputs, _outputs(model, other), strict=True)):
            changed[depth].append(np.any(np.abs(a - b) > 1e-12, axis=-1)[0])  # (T − k,): more than another order of sums
    rows: Rows = []
    for depth, noticed in enumerate(changed):
        notices = np.array(noticed)  # (word exchanged, position)
        for position in range(notices.shape[1]):
            seen = np.flatnonzero(notices[:, position])
            target = position + depth + 1
            sees = {"sees_to": int(seen.max()), "sees_all_before": bool(len(seen) == seen.max() + 1)}
            words = {"shown": text[position + depth], "predicts": text[target] if target < len(text) else ""}
            rows.append({"depth": depth, "position": position, "word": text[position]} | sees | words)
    return rows


def _outputs(model: DeepSeekV3, tokens: np.ndarray) -> list[np.ndarray]:
    """Logits of the main model and of every MTP depth."""
    with use_backend("numpy"):  # a handful of tokens: compiling for float64 would take longer
        return [model.logits(tokens), *model.mtp_logits(tokens)]


@picture(15, _rows)
def mtp_chain(slide: Slide, rows: Rows) -> None:
    """Multi-token prediction as a causal chain: each module takes the state of the one before and the next token's
    embedding.

    A grid. Bottom row: the words of a sentence. Above each word the main model's state with the next word as its
    prediction; above that the module's state, which also gets the embedding of the next word and predicts the word after
    it. Faint lines lead from every position to all later ones.
    """
    depths = sorted({row["depth"] for row in rows})
    ahead = {d: {row["sees_to"] - row["position"] for row in only(rows, depth=d)} for d in depths}
    assert all(len(steps) == 1 for steps in ahead.values()), "positions differ in how far ahead they see"
    steps = [next(iter(ahead[d])) for d in depths]
    top = slide.title(
        "Each MTP module is shown one token more and predicts the one after it",
        "random weights, measured",
        "By exchanging words: position i sees tokens up to "
        + ", ".join(f"{'i' if not n else f'i + {n}'} at h{_superscript(d)}" for d, n in zip(depths, steps, strict=True)),
    )
    shown = 4 if slide.letters <= 1.2 else 3  # positions drawn
    left = LEFT + 0.25 + slide.width_of(("MTP module 1", "main model"), 18, True)
    pitch, low = (RIGHT - left) / shown, 0.55
    wide, room = pitch * 0.38, top - 0.35 - low - 1.09
    high = max(0.62, 0.12 * room)
    lane = (room - high) / max(1, len(depths) - 1)
    slide.text(LEFT, low + 0.22, "token", 18, weight="bold")
    below = [
        slide.box(left + pitch * i, low, wide, 0.48, fill="panel", edge="muted")
        for i, row in enumerate(only(rows, depth=0)[:shown])
    ]
    for place, row in zip(below, only(rows, depth=0), strict=False):
        slide.verbatim(*place.middle, row["word"], ha="center")
    for d in depths:
        y, kind = low + 1.09 + lane * d, "mtp" if d else "hidden"
        name = f"MTP module {d}" if d else "main model"
        slide.lines(LEFT, y + high / 2, (name, 18, "ink", "bold"), (f"predicts i + {d + 1}", 16, "muted"))
        for i, under in enumerate(below):  # every position sees those before it
            for j in range(i + 1, len(below)):
                slide.arrow(under.above, (left + pitch * j + 0.3 * wide, y), kind="faint", width=1.6, head=False)
        for i, row in enumerate(only(rows, depth=d)[:shown]):
            state = slide.box(left + pitch * i, y, wide, high, f"h{_superscript(d)}", kind, 18)
            # from the token, or from the depth before and the embedding of the token shown
            slide.arrow(below[i].above, (state.below[0], y - 0.02))
            below[i], (x, middle) = state, state.behind
            slide.arrow((x, middle), (x + 0.32, middle), kind=kind)
            slide.verbatim(x + 0.4, middle, row["predicts"], weight="bold")
            if d:
                slide.arrow((x + 0.32, y - 0.23), (x - wide * 0.2, y - 0.02), kind="hidden")
                slide.verbatim(x + 0.4, y - 0.25, f"+ {row['shown']}", 16, "muted")


def _superscript(n: int) -> str:
    return "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(n))
