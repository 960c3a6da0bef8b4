"""minids figures: what it writes, what it refuses."""

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
