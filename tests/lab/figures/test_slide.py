"""What a slide is put together from: labels that keep their distance, blocks, titles that say what the numbers are of."""

from itertools import pairwise

import pytest
from lab.figures.proof import faults, texts, words

from minids.lab.figures.lettering import apart
from minids.lab.figures.slide import Slide
from minids.lab.figures.style import style


def test_labels_are_moved_apart_as_little_as_needed():
    assert apart([3.0, 2.0], 0.5) == [3.0, 2.0]
    assert apart([2.0, 2.0, 0.0], 0.5) == [2.25, 1.75, 0.0]
    moved = apart([1.0, 1.0, 1.0], 0.5)
    assert all(a - b >= 0.5 - 1e-6 for a, b in pairwise(moved)) and sum(moved) == pytest.approx(3.0)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_names_behind_curves_do_not_overprint(scale):
    with style():
        slide = Slide()
        ax = slide.plot(2, 1, 8, 6, frame=False, yscale=scale)
        ends = {"one": 10.0, "two": 10.1, "three": 9.9, "far": 1000.0}
        for y in ends.values():
            ax.plot([1, 2], [1, y])
        ax.set(xticks=[], yticks=[])
        ax.minorticks_off()
        slide.end_labels(ax, [(2, y, name, {}) for name, y in ends.items()])
        boxes = {text: box for text, box, *_ in texts(slide.figure) if text in ends}
    assert faults(slide.figure) == []
    heights = [boxes[name].y0 for name in ("far", "two", "one", "three")]
    assert heights == sorted(heights, reverse=True), "in the order of the curves"
    near, _ = ax.transAxes.inverted().transform((0, (boxes["far"].y0 + boxes["far"].y1) / 2))[::-1]
    assert near == pytest.approx((ax.transScale + ax.transLimits).transform((2, 1000.0))[1], abs=0.02), "nobody pushed it"


def test_a_title_says_what_its_numbers_are_of():
    with style():
        slide = Slide()
        alone = slide.title("A finding", "tiny, 2.66 M parameters, bytes")
        assert words(slide.figure) == "A finding\ntiny, 2.66 M parameters, bytes"
        assert Slide().title("A finding", "a model", "and a longer line " * 12) < alone, "room for two lines is less room"
        with pytest.raises(TypeError):
            Slide().title("A finding")


def test_a_stack_fills_its_height_with_blocks_and_arrows():
    with style():
        slide = Slide()
        at = slide.stack(1, 1, 3, 7, [("tokens", "", 0.5), ("embedding", "hidden", 1.0), ("head", "hidden", 0.5)])
        assert at["tokens"].y == 1 and at["head"].above == (2.5, 8)
        assert at["embedding"].y - at["tokens"].above[1] == pytest.approx(2.5) and at["embedding"].behind == (4, 4.5)
        assert words(slide.figure) == "tokens\nembedding\nhead" and faults(slide.figure) == []


def test_bars_and_maps_are_the_numbers():
    with style():
        slide = Slide()
        bars = slide.bars(4, 1, 4, 6, [3.0, 1.0], ["a", "b"], ["latent", "other"], ["three", "one"])
        heat = slide.heat(10, 1, 3, 6, [[0.0, 1.0]], "viridis", 0, 1, ["x", "y"], ["z"])
        assert [patch.get_width() for patch in bars.patches] == [3.0, 1.0]
        assert heat.images[0].get_array().tolist() == [[0.0, 1.0]]
        assert set(words(slide.figure).split("\n")) == {"a", "b", "three", "one", "x", "y", "z"} and faults(slide.figure) == []
