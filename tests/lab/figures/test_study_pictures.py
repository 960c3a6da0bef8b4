"""Pictures of studies, and numbers that are kept: rows are the results' numbers, and what is written on them are the rows."""

import io
import json
import types
from pathlib import Path

import numpy as np
import pytest
from lab.figures.proof import faults, words
from PIL import Image, ImageColor

from minids import MinidsError
from minids.lab import figures
from minids.lab.figures.film import gif
from minids.lab.figures.picture import Look, distinct, only
from minids.lab.figures.routing import STRATEGIES, _last_quarter
from minids.lab.figures.sources import Sources, fingerprint
from minids.lab.figures.style import SURFACES, THEMES
from minids.lab.studies import load, results


def drawn(picture, rows):
    """What is written on a picture, which has no fault in either theme."""
    for theme in ("dark", "light"):
        figure = picture.drawn(rows, theme=theme)
        assert faults(figure) == []
    return words(figure)


LOADS = {  # two moments: without balancing one expert takes all, with the bias the busiest changes
    load.NO: [[2.6, 1.0, 0.2, 0.2], [2.6, 1.0, 0.2, 0.2]],
    load.BIAS: [[1.4, 0.6, 1.0, 1.0], [0.6, 1.4, 1.0, 1.0]],
}


def load_rows():
    arms = {arm: {"details": {"step": [5, 10], "relative_load": [both, [[1.0] * 4] * 2]}} for arm, both in LOADS.items()}
    return figures.expert_load_in_training.rows(found={"arms": arms})


def test_load_in_training():
    rows = load_rows()
    last = [row["times_even"] for row in only(rows, strategy="V3's bias", step=10)]
    assert last == LOADS[load.BIAS][1], "of the first layer"
    assert only(rows, strategy="no balancing")[0]["max_vio"] == pytest.approx(1.6)
    shown = drawn(figures.expert_load_in_training, rows)
    assert "2.6 times its share with no balancing" in shown and "320 k parameters" in shown


def test_the_busiest_expert_is_that_of_each_moment():
    """Expert by expert the bias's loads average to 1: who is busy changes, but somebody always is."""
    assert _last_quarter(np.tile([[1.4, 0.6], [0.6, 1.4]], 4)) == pytest.approx((0.6, 1.4))


@pytest.mark.parametrize("theme", THEMES)
def test_the_animation_has_one_palette(theme):
    picture, look = figures.expert_load_in_training, Look(theme)
    made = [gif(list(picture.film.frames(picture, load_rows(), look))) for _ in range(2)]
    assert made[0].startswith(b"GIF89a") and made[0] == made[1]
    frames = Image.open(io.BytesIO(made[0]))
    corners = set()
    for frame in range(frames.n_frames):
        frames.seek(frame)
        corners.add(frames.convert("RGB").getpixel((1, 1)))
    assert frames.n_frames == 2 and corners == {ImageColor.getrgb(SURFACES["background"][THEMES.index(theme)])}


def test_loads_are_those_of_the_study():
    rows, kept = figures.expert_load_in_training.rows(), results("load")["arms"]
    assert distinct(rows, "strategy") == [STRATEGIES[arm] for arm in kept]
    for arm, held in kept.items():
        first = only(rows, strategy=STRATEGIES[arm], step=held["details"]["step"][0])
        assert [row["times_even"] for row in first] == held["details"]["relative_load"][0][0]
        assert sum(row["times_even"] for row in first) == pytest.approx(16, abs=0.01), "shares of an even load"


def test_loss_against_cache():
    rows, kept = figures.cache_and_quality.rows(), results("attention")["arms"]
    numbers = {row["attention"]: row["numbers_per_token_and_layer"] for row in rows}
    assert numbers == {"MHA": 160, "GQA": 80, "MQA": 40, "MLA": 36}
    assert [row["loss"] for row in only(rows, attention="GQA")] == kept["gqa"]["summary"]["loss"]["values"]
    shown = drawn(figures.cache_and_quality, rows)
    assert (
        "MLA caches 36 numbers instead of 160, and only MHA's loss is lower" in shown
        and f"MLA: {kept['mla']['summary']['loss']['mean']:.3f}" in shown
    )
    worst = [row | {"loss": 9.0} if row["attention"] == "MLA" else row for row in rows]
    assert "only MHA's" not in drawn(figures.cache_and_quality, worst), "said only where it is so"


def test_specialisation_with_and_without_the_loss():
    rows, kept = figures.specialisation.rows(), results("balance")["arms"]
    bits = [kept[arm]["summary"]["specialisation"]["mean"] for arm in ("bias 0.003", "sequence loss 0.1")]
    assert (
        only(rows, arm="bias 0.003", domain="code", layer=1, expert=3)[0]["times_even"]
        == (kept["bias 0.003"]["details"]["relative_load"]["code"][1][3])
    )
    shown = drawn(figures.specialisation, rows)
    assert f"tells {bits[0] / bits[1]:.0f} times as much" in shown and f"{bits[0]:.3f} and {bits[1]:.3f} bits" in shown


def test_needles_by_length_and_depth():
    rows, kept = figures.needles.rows(), results("long-context")["arms"]
    assert (
        only(rows, arm="YaRN", stage="tuned", length=512, depth=0.25)[0]["found"]
        == (kept["YaRN"]["summary"]["tuned needle 512 at 0.25"]["mean"])
    )
    mean = 100 * np.mean([row["found"] for row in only(rows, arm="no extension", length=512)])
    assert f"At 4 times the trained length {mean:.0f} % of the needles are found, with YaRN" in drawn(figures.needles, rows)


def test_what_was_measured_on_a_run_is_kept_for_its_weights(tmp_path, run):
    name = f"guesses_accepted.{fingerprint(run)}.json"
    (tmp_path / name).write_text(json.dumps({"rows": [{"domain": "prose"}]}))
    assert Sources(str(run), kept=tmp_path).rows(figures.guesses_accepted) == [{"domain": "prose"}]


def test_a_folder_that_is_no_run_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(MinidsError, match="holds no trained model"):
        Sources(run=str(tmp_path)).check([figures.training_run])


def test_only_who_asks_for_it_trains_and_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked, said = [], []
    monkeypatch.setattr("minids.training.run.Run.start", lambda *told: asked.append(told) or _Finished())
    with pytest.raises(MinidsError, match="holds no trained model"):
        Sources(say=said.append).rows(figures.rank_of_keys_and_values)
    assert not asked and not said
    assert Sources(say=said.append, train=True).run() == Path("runs/tiny")
    assert len(asked) == 1 and "training the tiny preset into runs" in said[0]


class _Finished:
    """A run that is at its end."""

    step, train = 1, types.SimpleNamespace(steps=1)

    def run(self):
        pass
