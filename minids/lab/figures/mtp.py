"""Figure 15: multi-token prediction as a causal chain, with what each output really depends on measured on a model."""

from __future__ import annotations

import numpy as np

from minids.backend import use_backend
from minids.config import ModelConfig
from minids.lab.figures.picture import Picture, Rows, only
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import colour
from minids.model import DeepSeekV3

TEXT = ("The", "latent", "is", "all", "that", "is", "cached")


def _rows(text: tuple[str, ...] = TEXT, depths: int = 2, config: ModelConfig | None = None, seed: int = 0) -> Rows:
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
            rows.append(
                {
                    "depth": depth,
                    "position": position,
                    "word": text[position],
                    "sees_to": int(seen.max()),
                    "sees_all_before": bool(len(seen) == seen.max() + 1),
                    "shown": text[position + depth],
                    "predicts": text[target] if target < len(text) else "",
                }
            )
    return rows


def _outputs(model: DeepSeekV3, tokens: np.ndarray) -> list[np.ndarray]:
    """Logits of the main model and of every MTP depth."""
    with use_backend("numpy"):  # a handful of tokens: compiling for float64 would take longer
        return [model.logits(tokens), *model.mtp_logits(tokens)]


def _draw(slide: Slide, rows: Rows) -> None:
    depths = sorted({row["depth"] for row in rows})
    ahead = {d: {row["sees_to"] - row["position"] for row in only(rows, depth=d)} for d in depths}
    assert all(len(steps) == 1 for steps in ahead.values()), "positions differ in how far ahead they see"
    steps = [next(iter(ahead[d])) for d in depths]
    top = slide.title(
        "Each MTP module is shown one token more and predicts the one after it",
        "Found by exchanging words: position i sees tokens up to "
        + ", ".join(f"{'i' if not n else f'i + {n}'} at h{_superscript(d)}" for d, n in zip(depths, steps, strict=True)),
    )
    shown = 4  # positions drawn
    left, right = 3.3, 15.5
    pitch = (right - left) / shown
    low, high = 0.55, top - 0.35
    lane = (high - low - 1.71) / max(1, len(depths) - 1)  # the lowest stands above the words, the highest below the title
    wide = pitch * 0.42
    words = [row["word"] for row in only(rows, depth=0)]
    lanes = {d: low + 0.62 + lane * d + 0.12 for d in depths}
    slide.text(0.55, low + 0.22, "token", 18, weight="bold")
    for i in range(shown):
        x = left + pitch * i
        slide.box(x, low, wide, 0.48, words[i], size=17, fill=colour("panel"), edge=colour("muted"))
    for d in depths:
        y = lanes[d]
        kind = "hidden" if d == 0 else "mtp"
        mid = y + 0.62
        slide.text(0.55, mid + 0.05, "main model" if d == 0 else f"MTP module {d}", 18, weight="bold")
        slide.text(0.55, mid - 0.36, f"predicts i + {d + 1}", 16, "muted")
        for row in only(rows, depth=d)[:shown]:
            i = row["position"]
            x = left + pitch * i
            slide.box(x, y + 0.35, wide, 0.62, f"h{_superscript(d)}", kind, 18)
            slide.arrow((x + wide, mid + 0.04), (x + wide + 0.32, mid + 0.04), kind=kind)
            slide.text(x + wide + 0.4, mid + 0.04, row["predicts"], 17, weight="bold")
            # from the token, or from the depth before and the embedding of the token shown
            below = low + 0.48 if d == 0 else lanes[d - 1] + 0.97
            slide.arrow((x + wide / 2, below), (x + wide / 2, y + 0.33), kind="muted")
            if d:
                slide.arrow((x + wide + 0.32, y + 0.12), (x + wide * 0.8, y + 0.33), kind="hidden")
                slide.text(x + wide + 0.4, y + 0.1, f"+ {row['shown']}", 16, "muted")


def _superscript(n: int) -> str:
    return "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(n))


mtp_chain = Picture(
    15,
    "mtp_chain",
    "Multi-token prediction as a causal chain: each module takes the state of the one before and the next token's embedding.",
    "A grid. Bottom row: the words of a sentence. Above each word the main model's state with the next word as its prediction; "
    "above that the first module's state, which also gets the embedding of the next word and predicts the word after it; above "
    "that the second module's, one word further again.",
    _rows,
    _draw,
)
