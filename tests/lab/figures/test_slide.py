"""What a slide is put together from: labels that keep their distance, blocks, titles that say what the numbers are of."""

from itertools import pairwise

import numpy as np
import pytest
from lab.figures.proof import faults, texts, words

from minids.lab.figures.lettering import apart, wrapped
from minids.lab.figures.slide import LEFT, RIGHT, Box, Slide
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


def test_parts_stand_side_by_side_or_one_below_the_other():
    with style():
        left, right = Slide().parts(1, 7, 2, 1)
        assert left.y == right.y == 1 and left.h == 6 and left.w == pytest.approx(2 * right.w)
        assert right.x - left.x - left.w == pytest.approx(0.5) and right.x + right.w == pytest.approx(RIGHT)
        above, below = Slide(height=15).parts(1, 12, 1, 1)
        assert above.y + above.h == 12 and below.y == 1 and above.w == below.w == pytest.approx(RIGHT - LEFT)
        assert above.piece(1, 2) == (above.middle[0], above.y, above.w / 2, above.h)
        assert above.piece(0, 2, across=False).y == pytest.approx(above.middle[1])


def test_axes_within_a_frame_keep_their_words_in_it():
    with style():
        slide = Slide()
        frame, names = Box(2, 1, 8, 5), ["a curve", "another one"]
        ax = slide.within(frame, "100", names, xlabel="steps", ylabel="loss", ylim=(0, 100), xlim=(0, 1))
        slide.end_labels(ax, [(1, 10, names[0], {}), (1, 60, names[1], {})])
        boxes = [box.transformed(slide.ax.transData.inverted()) for _, box, *_ in texts(slide.figure)]
    assert len(boxes) > 8 and faults(slide.figure) == []
    assert min(b.x0 for b in boxes) > 1.9 and min(b.y0 for b in boxes) > 0.9
    assert max(b.x1 for b in boxes if b.y0 > 1.8) < 10.1, "names behind curves too"


def test_names_far_from_their_curves_have_leaders():
    def drawn(*heights):
        slide = Slide()
        ax = slide.plot(2, 1, 8, 6, frame=False, xlim=(0, 1), ylim=(0, 10))
        slide.end_labels(ax, [(1, y, f"at {y}", {}) for y in heights])
        return [text for text in ax.texts if text.arrow_patch is not None]

    with style():
        assert drawn(2, 8) == [] and len(drawn(5.0, 5.1, 5.2)) == 3


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
        bars = slide.bars(Box(LEFT, 1, 8, 6), [3.0, 1.0], ["a", "b"], ["latent", "other"], ["three", "one"])
        heat = slide.heat(10, 1, 3, 6, [[0.0, 1.0]], "viridis", 0, 1, ["x", "y"], ["z"])
        assert [patch.get_width() for patch in bars.patches] == [3.0, 1.0]
        assert heat.images[0].get_array().tolist() == [[0.0, 1.0]]
        assert set(words(slide.figure).split("\n")) == {"a", "b", "three", "one", "x", "y", "z"} and faults(slide.figure) == []


def test_bars_leave_room_for_what_stands_behind_them():
    """The longest word stands behind a short bar: the bars need not give way to it."""
    with style():
        slide, frame = Slide(), Box(LEFT, 1, 10, 6)
        kinds, says = ["latent", "other"], ["one", "a much longer word than the first"]
        notes = ["of the longest, in it", "of the other"]
        bars = slide.bars(frame, [100.0, 1.0], ["a", "b"], kinds, says, notes=notes)
        boxes = {text: box.transformed(slide.ax.transData.inverted()) for text, box, *_ in texts(slide.figure)}
        whole = bars.get_position().transformed(slide.figure.transFigure + slide.ax.transData.inverted())
    assert boxes["one"].x1 == pytest.approx(LEFT + 10, abs=0.25), "the frame is filled"
    assert max(box.x1 for box in boxes.values()) < LEFT + 10 and faults(slide.figure) == []
    assert boxes[notes[0]].x1 < whole.x1 and boxes[notes[1]].x0 > boxes[says[1]].x1


def test_words_become_smaller_where_they_have_to():
    with style():
        slide = Slide()
        assert slide.fit("short", 17, 5) == 17
        size = slide.fit(["short", "rather long words"], 17, 1.0, bold=True)
        assert size < 17 and slide.width_of("rather long words", size, bold=True) == pytest.approx(1.0, rel=0.02)


def test_a_number_and_its_unit_stay_on_one_line():
    for room in np.arange(2.0, 9.0, 0.25):
        lines = wrapped("overlapped pair F = 1, of which 40 % are idle", 25, room)
        assert " ".join(lines) == "overlapped pair F = 1, of which 40 % are idle"
        assert any("F = 1" in line for line in lines) and any("40 %" in line for line in lines)
