"""The set is whole, every picture of it is drawn without collisions, and files are what was promised."""

import csv
import io
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from lab.figures.proof import faults, words

import minids
from minids.errors import MinidsError
from minids.lab.figures.collection import found, gallery, half_blocks, listing, pictures, write
from minids.lab.figures.picture import as_csv
from minids.lab.figures.style import THEMES, encoded, style


@cache
def rows_of(picture):
    """Made once for both themes."""
    return picture.rows()


ALONE = [p for p in pictures() if p.source == "arithmetic"]


def test_no_module_hides_a_picture():
    assert not set(minids.lab.figures._HOMES) & set(minids.lab.figures._HOMES.values())


def test_numbers_names_and_words_are_complete():
    every = pictures()
    assert [p.number for p in every] == sorted({p.number for p in every}), "two pictures have one number"
    for p in every:
        assert p.name == p.name.lower() and getattr(minids.lab.figures, p.name) is p
        assert p.caption.endswith(".") and "\n" not in p.caption and len(p.caption) < 200, p.name
        assert len(p.alternative) > 80 and p.alternative.endswith("."), p.name


@pytest.mark.parametrize("picture", ALONE, ids=lambda p: p.name)
@pytest.mark.parametrize("theme", THEMES)
def test_no_word_is_cut_off_covered_or_too_small(picture, theme):
    assert faults(picture.drawn(rows_of(picture), theme=theme)) == []


def test_two_drawings_are_the_same_bytes(tmp_path):
    picture = minids.lab.figures.training_cost
    rows = picture.rows()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(picture, rows, tmp_path / name, THEMES, ("svg", "png", "pdf"))
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == sorted(
        f"20_training_cost{end}" for end in (".csv", ".txt", ".svg", ".png", ".pdf", ".dark.svg", ".dark.png", ".dark.pdf")
    )
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_an_svg_is_small_and_says_what_it_shows():
    figure = minids.lab.figures.mla()
    with style():
        svg = encoded(figure, "svg", "A & B", "seen: x < y")
    assert len(svg) < 500_000
    assert b"<title>A &amp; B</title>" in svg and b"<desc>seen: x &lt; y</desc>" in svg and b'role="img"' in svg
    assert b"<dc:date>" not in svg and b">cached: 576</text>" in svg, "letters are text"
    assert b"'DejaVu Sans', Verdana, sans-serif" in svg, "a font of the same widths stands in"


def test_a_png_is_a_full_screen():
    from PIL import Image

    figure = minids.lab.figures.training_cost()
    with style():
        image = Image.open(io.BytesIO(encoded(figure, "png")))
    assert image.size == (1920, 1080)
    lines = half_blocks(encoded(figure, "png"), columns=32)
    assert len(lines) == 9 and all(line.count("▀") == 32 for line in lines)


def test_a_picture_fits_into_an_axes_of_the_reader():
    from matplotlib.figure import Figure

    page = Figure(figsize=(12.8, 7.2))
    ax = page.add_axes((0.5, 0.5, 0.5, 0.5))
    assert minids.lab.figures.training_cost(ax=ax) is page
    assert faults(page, smallest=8.0) == []
    assert "DeepSeek-V3" in words(page)


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for draw in (minids.lab.figures.training_cost, minids.lab.figures.rank_of_keys_and_values, style().__enter__):
        with pytest.raises(MinidsError, match=r'not installed; pip install "minids\[lab\]"'):
            draw()
    assert "kv_cache_per_token" in listing(found(["3"]), tmp_path, colours=False), "names need no pictures"


def test_the_lab_is_imported_without_matplotlib_and_pillow():
    code = """if True:
        import sys
        sys.modules["matplotlib"] = sys.modules["PIL"] = None
        import minids.lab.figures, minids.lab.notebook, minids.lab.analysis.claims, minids.lab.studies
        from minids.lab.figures.collection import pictures
        assert pictures()[0].rows()
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_table_has_a_line_per_row_and_gaps_where_a_row_has_no_such_number():
    text = as_csv([{"a": 1, "b": 0.1 + 0.2}, {"a": np.int64(2), "c": "x"}, {"a": True, "b": np.float32(1.5)}])
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"a": "1", "b": "0.3", "c": ""},
        {"a": "2", "b": "", "c": "x"},
        {"a": "True", "b": "1.5", "c": ""},
    ]


def test_pictures_are_found_by_number_and_name():
    assert [p.number for p in found(["19", "3", "kv_cache_per_token"])] == [3, 19], "in order, each once"
    assert found(["03"]) == found(["3"]) and len(found([])) == len(pictures())
    with pytest.raises(MinidsError, match=r"kv_cache.*did you mean kv_cache_per_token"):
        found(["kv_cache"])


def test_wrong_arguments_are_named():
    with pytest.raises(MinidsError, match=r"modles.*takes models, config, name, ax, theme, aspect, letters"):
        minids.lab.figures.kv_cache_per_token(modles={})
    with pytest.raises(MinidsError, match=r"theme.*sepia.*light, dark"):
        minids.lab.figures.kv_cache_per_token(theme="sepia")
    with pytest.raises(AttributeError, match="no_such_picture"):
        minids.lab.figures.no_such_picture  # noqa: B018


def test_the_list_names_captions_and_shows_thumbnails_in_colour(tmp_path):
    shown = found(["3", "20"])
    plain = listing(shown, tmp_path, colours=False)
    assert "3  kv_cache_per_token" in plain and "not drawn yet: minids figures 20" in plain and "\x1b" not in plain
    coloured = listing(shown[1:], tmp_path, colours=True)
    assert coloured.count("▀") >= 64 * 18


def test_a_notebook_shows_the_set_with_small_images(tmp_path):
    shown = minids.lab.figures.thumbnails("3", "training_cost", "training_run", out=str(tmp_path))
    page = shown._repr_html_()
    assert page.count("<tr>") == 3 and page.count("data:image/png;base64,") == 2, "a run's picture is not made on the spot"
    assert "<b>22. training_run</b>" in page and "V3&#x27;s sizes" in page and len(page) < 120_000
    assert "kv_cache_per_token" in repr(shown) and "<" not in repr(shown)


def test_the_gallery_has_every_picture_with_its_words_and_files():
    page = gallery(pictures())
    for p in pictures():
        assert f"## {p.number}. {p.name}" in page and p.caption in page and f"]({p.stem}.png)" in page
    assert page.count(".gif") == sum(p.film is not None for p in pictures()) > 1
