"""Figure 27: DeepSeek-V3's own training over its 14.8T tokens: what was changed, and when."""

from minids.config import ModelConfig, TrainConfig
from minids.lab.analysis.cost import V3_TOKENS
from minids.lab.figures.picture import Rows, column, distinct, only, picture
from minids.lab.figures.slide import LEFT, RIGHT, Slide
from minids.lab.figures.style import colour, ink_on
from minids.lab.figures.words import token_count
from minids.training.schedule import settings

PEAK, WARM_UP = 2.2e-4, 2000  # learning rate, and steps until it is reached (V3 report, section 4.2)
BATCH, FIRST_BATCH, RAMP = 15360, 3072, 469e9  # sequences a step, at first, and tokens until they are that many
CONTEXT = 4096
EXTENSIONS = ((32768, 1920, 1000), (131072, 480, 1000))  # context, batch and steps of each stage (section 4.3)
POINTS = 740  # every 20 billion tokens


def _rows(points: int = POINTS) -> Rows:
    """V3's schedule at ``points`` moments, by the functions that train here, and its two stages of context extension."""
    model, train = ModelConfig.preset("deepseek-v3"), TrainConfig(steps=points, learning_rate=PEAK, warmup_steps=0)
    rate_of_warm_up = WARM_UP * FIRST_BATCH * CONTEXT / V3_TOKENS  # share of the tokens: the batch is small at first
    rows: Rows = []
    for i in range(points + 1):
        at = settings(min(i, points - 1), model, train)
        tokens = V3_TOKENS * i / points
        warm = min(1.0, i / points / rate_of_warm_up)
        rows.append(
            {"tokens": tokens, "learning_rate": at.learning_rate * warm, "mtp_weight": at.mtp_loss_weight}
            | {"bias_speed": at.bias_update_speed, "batch": FIRST_BATCH + (BATCH - FIRST_BATCH) * min(1.0, tokens / RAMP)}
            | {"context": CONTEXT, "stage": "pre-training"}
        )
    end = V3_TOKENS
    for context, batch, steps in EXTENSIONS:
        used = context * batch * steps
        rows.append({"tokens": end, "context": context, "batch": batch, "stage": "extension", "stage_tokens": used})
        end += used
    return rows


@picture(27, _rows)
def v3_timeline(slide: Slide, rows: Rows) -> None:
    """DeepSeek-V3's training over 14.8 trillion tokens: learning rate, batch, weight of MTP, speed of the bias, context.

    Five lanes over one axis of tokens. The learning rate is a block that is flat to ten trillion and then falls like a wave
    to a tenth and a thirtieth; the batch grows at the very beginning; the weight of the MTP loss falls to a third at ten
    trillion; the speed of the bias falls to nothing at 14.3 trillion; the context is short throughout and grows in two
    steps behind the end.
    """
    trained, extensions = only(rows, stage="pre-training"), only(rows, stage="extension")
    whole, stopped = trained[-1]["tokens"], next(row["tokens"] for row in trained if not row["bias_speed"])
    decays = next(row["tokens"] for row in trained if row["mtp_weight"] < trained[0]["mtp_weight"])
    top = slide.title(
        f"{100 * decays / whole:.0f} % of the tokens are read at the full learning rate; in the last "
        f"{100 * (1 - stopped / whole):.0f} % the bias stands still",
        "DeepSeek-V3, its report",
        f"{whole / 1e12:g} trillion tokens in one run; the shape of the batch's ramp is not reported",
    )
    line = slide.line
    lanes = {
        "learning_rate": ("learning rate", "query", lambda v: f"{v:.1e}".replace("e-0", "e−")),
        "batch": ("batch, sequences", "routed", lambda v: f"{v:,.0f}"),
        "mtp_weight": ("weight of MTP, λ", "mtp", lambda v: f"{v:g}"),
        "bias_speed": ("speed of bias, γ", "rope", lambda v: f"{v:g}"),
        "context": ("context, tokens", "latent", token_count),
    }
    names = {key: slide.language.say(name) for key, (name, *_) in lanes.items()}
    margin = max(slide.width_of(name, 17, True) for name in names.values()) + 0.3
    x, right = LEFT + margin, RIGHT - 1.35 * slide.letters
    extra = 0.09 * (right - x)  # for the extensions, which would be too thin to see: they are not to scale
    told = " and ".join(f"{row['stage_tokens'] / 1e9:.1f}B at {token_count(row['context'])}" for row in extensions)
    foot = slide.note(f"Then {told}, tokens of context extension (wider than to scale)")
    wide, low = right - x - extra, foot + 1.4 * line
    step = (top - 0.25 - low) / len(lanes)
    for i, (key, (_, kind, said)) in enumerate(lanes.items()):
        y, high = top - 0.25 - step * (i + 1), 0.62 * step
        slide.text(LEFT, y + high / 2, names[key], 17, weight="bold")
        ax = slide.plot(x, y, wide, high, xlim=(0, whole), zorder=0.5)
        ax.set(xticks=[], yticks=[])
        xs, ys = column(trained, "tokens"), column(trained, key)
        most = max([*ys, *(row[key] for row in extensions if key in row)]) if key == "context" else max(ys)
        ax.set_ylim(0, 1.1 * most)
        ax.fill_between(xs, ys, color=colour(kind), linewidth=0)
        if key == "context":
            slide.text(x + 0.15 + wide * RAMP / whole, y + 0.2 * high + 0.5 * line, said(CONTEXT), 16, weight="bold")
            for j, row in enumerate(extensions):
                left = x + wide + 0.06 + j * extra / 2
                slide.rectangle(left, y, extra / 2 - 0.06, high * row[key] / (1.1 * most), kind)
        values = distinct(trained, key) if key != "learning_rate" else [max(ys), ys[-1]]
        last = values[-1] if key != "context" else extensions[-1][key]
        slide.text(x + wide + (extra if key == "context" else 0) + 0.15, y + high / 2, said(last), 16)
        if key in ("learning_rate", "mtp_weight", "bias_speed"):
            slide.text(x + 0.15 + wide * RAMP / whole, y + high / 2, said(max(ys)), 16, ink_on(colour(kind)), weight="bold")
        elif key == "batch":
            slide.text(
                x + 0.12 * wide, y + high / 2, f"{values[0]:,.0f} → {values[-1]:,.0f}", 16, ink_on(colour(kind)), weight="bold"
            )
    slide.text(LEFT, low - 0.5 * line, "tokens", 16, "muted")
    for tokens in (0, RAMP, decays, stopped, whole):
        at = x + wide * tokens / whole
        slide.arrow((at, low - 0.1), (at, top - 0.2), kind="faint", width=1.2, head=False)
        ha = "right" if tokens == stopped else "center" if tokens != whole else "left"
        if tokens != RAMP:
            words = f"{tokens / 1e12:.3g}T"
            slide.text(at + (0.1 if tokens == whole else 0), low - 0.5 * line, words, 16, ha=ha)
