"""Any slide: shapes, sizes of letters, colours, no background, builds one by one, films, and figures from outside."""

import io
import re
import stat
import subprocess

import numpy as np
import pytest
from lab.figures.proof import crossed, faults, words
from matplotlib.figure import Figure
from PIL import Image

from minids.errors import MinidsError
from minids.lab import figures
from minids.lab.figures import film
from minids.lab.figures.canvas import Box
from minids.lab.figures.collection import found, pictures, write
from minids.lab.figures.language import KEPT, words_of
from minids.lab.figures.picture import ASPECTS, Look, Picture
from minids.lab.figures.style import encoded, style

SHAPES = [Look(letters=0.8), Look(letters=1.5), Look(aspect="4:3"), Look(aspect="square"), Look(aspect="column")]
LANGUAGES = [Look(words=words_of(name)) for name in KEPT]
SMALLEST = {"column": 5.2, "16:9": 12.7}  # points at least, in a column of 8.6 cm and on a slide, whatever had to give way
ALONE = [p for p in pictures() if not p.source.startswith("run")]


def pixels(figure, **looks):
    with style(**looks):
        return np.asarray(Image.open(io.BytesIO(encoded(figure, "png"))).convert("RGBA"))


@pytest.mark.slow
@pytest.mark.parametrize("picture", pictures(), ids=lambda p: p.name)
def test_nothing_overlaps_in_any_shape_and_size(picture, run):
    quick = {"windows": 2, "new_tokens": 8, "rounds": 1} if picture.name == "guesses_accepted" else {}
    rows = picture.rows(**({"run": run, **quick} if picture.source.startswith("run") else {}))
    for look in [*SHAPES, Look(), Look("dark"), Look("dark", "column"), Look("dark", letters=1.5), *LANGUAGES]:
        figure = picture.drawn(rows, look=look)
        assert faults(figure, smallest=SMALLEST.get(look.aspect, 11)) == [], look
        if look.aspect in SMALLEST:
            assert crossed(figure) == [], look


@pytest.mark.parametrize("name", ["one_card", "wall_of_experts", "attention_family", "training_cost"])
@pytest.mark.parametrize("look", SHAPES, ids=lambda look: f"{look.aspect} {look.letters}")
def test_shapes(name, look):
    figure = getattr(figures, name)(aspect=look.aspect, letters=look.letters)
    inches, height, _ = ASPECTS[look.aspect]
    assert faults(figure, smallest=0) == []
    assert figure.get_size_inches() == pytest.approx((inches, inches * height / 16))
    assert pixels(figure).shape[1] == 1920


def test_a_key_of_two_rows_keeps_off_what_is_above_it():
    assert crossed(figures.pipeline_schedules(aspect="column")) == []


def test_letters_are_as_large_as_asked_where_there_is_room():
    def largest(letters):
        return max(text.get_fontsize() for text in figures.cache_against_context(letters=letters).findobj(match=_is_small))

    assert largest(1.5) == pytest.approx(1.5 * largest(1.0))


def _is_small(artist):
    return getattr(artist, "get_text", str)().startswith("MHA")


@pytest.mark.parametrize("wide, high", [(0.5, 0.5), (0.25, 0.8), (0.9, 0.4)])
def test_axes_of_any_shape(wide, high):
    page = Figure(figsize=(12.8, 7.2))
    ax = page.add_axes((0.05, 0.1, wide, high))
    figures.kv_cache_per_token(ax=ax)
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    assert (x0, x1) == (0, 16) and (y1 - y0) / 16 == pytest.approx(high * 7.2 / (wide * 12.8)), "units stay square"
    assert faults(page, smallest=0) == []


def test_without_title_and_without_background():
    bare = words(figures.one_card(title=False))
    assert "One 80 GB card" not in bare and "DeepSeek-V3, arithmetic" not in bare and "2,277 pages" in bare
    for transparent, alpha in ((False, 255), (True, 0)):
        figure = figures.one_card(transparent=transparent)
        assert pixels(figure, transparent=transparent)[0, 0, 3] == alpha


def test_other_colours():
    figure = figures.where_parameters_sit(colours={"routed": "#123456", "background": "ivory"})
    seen = {tuple(colour) for colour in pixels(figure, colours={"background": "ivory"})[::4, ::4, :3].reshape(-1, 3).tolist()}
    assert {(0x12, 0x34, 0x56), (255, 255, 240)} <= seen
    with pytest.raises(MinidsError, match=r"routd.*did you mean routed"):
        figures.one_card(colours={"routd": "#123456"})
    with pytest.raises(MinidsError, match=r"routed.*is no colour"):
        figures.one_card(colours={"routed": "no such"})


@pytest.mark.parametrize("field, value", [("aspect", "3:2"), ("letters", 9)])
def test_looks_that_are_none(field, value):
    with pytest.raises(MinidsError, match=field):
        figures.one_card(**{field: value})


def test_builds_one_by_one(tmp_path):
    picture = figures.one_card
    slide = picture.slide(picture.rows())
    assert slide.steps == ["MLA", "one token"] and [len(build) > 3 for build in slide.builds()] == [True] * 3
    write(picture, picture.rows(), tmp_path, ["light"], ["png", "svg"], steps=True)
    shown = [np.asarray(Image.open(tmp_path / f"07_one_card.step{k}.png")) for k in (1, 2, 3)]
    ink = [np.sum(image[..., :3].min(axis=-1) < 200) for image in shown]
    assert ink[0] < ink[1] < ink[2]
    np.testing.assert_array_equal(shown[2], np.asarray(Image.open(tmp_path / "07_one_card.png")), "the last is the whole")
    svg = (tmp_path / "07_one_card.svg").read_text(encoding="utf-8")
    ids = re.findall(r'<g class="fragment" data-fragment-index="(\d)" id="(step\d-[^"]*)"', svg)
    assert {index for index, _ in ids} == {"0", "1", "2"} and len(ids) == len({name for _, name in ids})
    assert any(name.endswith("2-277-pages") and index == "1" for index, name in ids)


FRAMES = [(np.full((4, 6), 0xFF0000FF, np.uint32), 100), (np.full((4, 6), 0xFFFFFFFF, np.uint32), 400)]


def test_mp4_is_made_by_ffmpeg(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\nfor last; do :; done\ncat > "$last"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert len(film.mp4(FRAMES)) == 4 * 6 * 4 * (2 + 8), "at 20 a second"
    program.write_text("#!/bin/sh\necho no such codec >&2\nexit 1\n")
    with pytest.raises(MinidsError, match="no such codec"):
        film.mp4(FRAMES)


@pytest.mark.slow  # `make test-all` installs the extra "film", which brings an encoder
def test_an_mp4_holds_the_frames_that_were_drawn(tmp_path):
    """Made by a real encoder and read back by it: as many frames as the milliseconds say, one background in all of them."""
    high, wide, colours = 48, 64, (0xFF1C1714, 0xFF00A5FF)  # RGBA, lowest byte first: the dark background, an orange
    drawn = [np.full((high, wide), colours[0], np.uint32) for _ in range(3)]
    for i, frame in enumerate(drawn):
        frame[8:40, 8 : 24 + 16 * i] = colours[1]
    made = film.mp4([(frame, milliseconds) for frame, milliseconds in zip(drawn, (100, 150, 500), strict=True)])
    (tmp_path / "film.mp4").write_bytes(made)
    command = [film.ffmpeg(), "-loglevel", "error", "-i", str(tmp_path / "film.mp4"), "-f", "rawvideo", "-pix_fmt", "rgba", "-"]
    read = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    read = read.reshape(-1, high, wide, 4)[..., :3].astype(int)
    assert len(read) == 2 + 3 + 10, "at 20 a second"
    assert b"ftyp" in made[:12] and b"avc1" in made, "H.264, which every slide program plays"
    for at, frame in ((0, drawn[0]), (4, drawn[1]), (14, drawn[2])):
        wanted = frame.view(np.uint8).reshape(high, wide, 4)[..., :3]
        assert np.abs(read[at] - wanted).mean() < 4, f"frame {at} is not the one that was drawn"
    assert np.ptp(read[:, 2, 2], axis=0).max() <= 3, "the background flashes"


def test_without_ffmpeg_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("minids.lab.figures.film.find_spec", lambda name: None)
    with pytest.raises(MinidsError, match=r'pip install "minids\[film\]"'):
        film.ffmpeg()


def test_a_figure_from_outside_joins_the_set(monkeypatch):
    monkeypatch.setattr(figures, "PICTURES", list(figures.PICTURES))
    monkeypatch.setattr(figures, "_registered", {})
    with pytest.raises(MinidsError, match=r"number = 7: is another figure's; \d+ is free"):
        figures.register(Picture(7, "mine", "A figure.", "What it shows.", lambda: [], lambda slide, rows: None))

    def draw(slide, rows):
        slide.title("Two bars", "my numbers")
        slide.bars(Box(2, 1, 12, 5), [row["value"] for row in rows], ["a", "b"], ["latent", "other"])

    picture = Picture(90, "mine", "Two bars.", "A long bar and a short one.", lambda: [{"value": 2.0}, {"value": 1.0}], draw)
    assert figures.register(picture) is picture is figures.mine and found(["90"]) == [picture] and pictures()[-1] is picture
    assert faults(figures.mine()) == []
