"""minids figures: what it writes, what it refuses."""

import json

import minids.lab.figures
from minids.cli import main


def test_some_figures_in_one_theme_and_format(tmp_path, capsys):
    assert main(["figures", "20", "kv_cache_per_token", "--theme", "dark", "--formats", "svg", "--out", str(tmp_path)]) == 0
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "03_kv_cache_per_token.csv",
        "03_kv_cache_per_token.dark.svg",
        "03_kv_cache_per_token.txt",
        "20_training_cost.csv",
        "20_training_cost.dark.svg",
        "20_training_cost.txt",
    ]
    said = capsys.readouterr().out
    assert "[1/2]  3 kv_cache_per_token" in said and "[2/2] 20 training_cost" in said
    words = (tmp_path / "20_training_cost.txt").read_text(encoding="utf-8")
    assert words.startswith("Floating-point work") and "Alternative text: " in words


def test_the_list(capsys, tmp_path):
    assert main(["figures", "--list", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert " 1  architecture" in said and "21  pipeline_schedules" in said and not list(tmp_path.iterdir())


def test_what_cannot_be_drawn_is_refused_in_one_line(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    (tmp_path / "file").write_text("")
    for arguments, expected in (
        (["99", *out], "no such figure"),
        (["architectur", *out], "did you mean architecture"),
        (["3", "--formats", "bmp", *out], "bmp"),
        (["3", "--theme", "sepia", *out], "sepia"),
        (["3", "--out", str(tmp_path / "file")], "cannot be written to"),
    ):
        assert main(["figures", *arguments]) == 2
        error = capsys.readouterr().err.strip()
        assert expected in error and "\n" not in error and "Traceback" not in error
    assert not (tmp_path / "out").exists(), "nothing is written before everything is checked"


OUTSIDE = """
from minids.lab.figures import register
from minids.lab.figures.picture import Picture
register(Picture(91, "mine", "Mine.", "Mine alone.", lambda: [{"value": 1}], lambda slide, rows: slide.title("Mine", "me")))
"""


def test_a_slide_of_another_shape_language_and_colour(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minids.lab.figures.PICTURES", list(minids.lab.figures.PICTURES))
    monkeypatch.setattr("minids.lab.figures._registered", {})
    (tmp_path / "mine.py").write_text(OUTSIDE)
    asked = ["one_card", "mine", "--also", str(tmp_path / "mine.py"), "--theme", "light", "--formats", "svg", "--words", "de"]
    asked += ["--aspect", "column", "--letters", "0.9", "--transparent", "--colours", "latent=#aa3377", "--steps"]
    assert main(["figures", *asked, "--out", str(tmp_path / "out")]) == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"07_one_card.svg", "07_one_card.step1.png", "07_one_card.step3.png", "91_mine.svg"} <= names
    svg = (tmp_path / "out" / "07_one_card.svg").read_text(encoding="utf-8")
    assert "2.277 Seiten" in svg and "#aa3377" in svg


def test_phrases_are_written_to_be_translated(tmp_path, capsys):
    out = tmp_path / "words.json"
    assert main(["figures", "all_to_all", "--phrases", str(out)]) == 0
    met = json.loads(out.read_text(encoding="utf-8"))
    assert met["NVLink, within a node"] == "" and "phrases in" in capsys.readouterr().out


def test_looks_that_cannot_be_drawn_are_refused_in_one_line(tmp_path, capsys):
    for arguments, expected in (
        (["--words", "klingon"], "none of de, ar"),
        (["--colours", "latnt=red"], "did you mean latent"),
        (["--letters", "7"], "between 0.5 and 3"),
        (["--also", str(tmp_path / "none.py")], "is no file"),
    ):
        assert main(["figures", "3", *arguments, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err.strip()
        assert expected in error and "\n" not in error
