"""A routed text as it is shown: the right expert at every token, nothing of the text able to break the page or the terminal."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from minids.checkpoint.tokenizer import byte_tokenizer
from minids.errors import MinidsError
from minids.lab.analysis.routing_trace import LayerTrace, RoutingTrace
from minids.lab.figures.routed_text import as_html, as_png, in_terminal, layer_of, leading, legend, palette, pieces

TOKENIZER = byte_tokenizer()
TEXT = "<b>é\n\x1b$x$ & y"
IDS = [256, *TOKENIZER.encode(TEXT)]
SHOWN = pieces(IDS, TOKENIZER)


def routed():
    rng = np.random.default_rng(0)
    layers = []
    for block in (1, 4):
        chosen = np.argsort(rng.random((1, len(IDS), 8)), axis=-1)[..., :3]
        layers.append(LayerTrace(f"model.layers.{block}.mlp", chosen, rng.random(chosen.shape), None))
    return RoutingTrace(tuple(layers), np.array([IDS]), experts=8, groups=4)


def test_every_token_is_shown_and_none_can_upset_a_terminal():
    assert len(SHOWN) == len(IDS)
    assert "".join(piece.text for piece in SHOWN) == "▸<b>··⏎·$x$ & y"
    assert [piece.newline for piece in SHOWN].index(True) == 6


def test_the_leading_expert_has_the_largest_gate_whatever_the_order_of_the_choice():
    chosen, gates = np.array([[[5, 2, 7], [1, 0, 3]]]), np.array([[[0.1, 0.7, 0.2], [0.5, 0.4, 0.1]]])
    np.testing.assert_array_equal(leading(LayerTrace("x", chosen, gates, None)), [2, 1])


def test_experts_of_a_node_share_a_hue_and_no_two_a_colour():
    import colorsys

    for experts, groups in ((16, 4), (256, 8), (8, 1)):
        colours = palette(experts, groups)
        assert len(set(colours)) == experts and all(re.fullmatch("#[0-9A-F]{6}", c) for c in colours)
    hue = [colorsys.rgb_to_hls(*(int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)))[0] for c in palette(16, 4)]
    within = max(np.ptp(hue[4 * g : 4 * g + 4]) for g in range(4))
    between = min(abs(np.mean(hue[4 * g : 4 * g + 4]) - np.mean(hue[4 * g + 4 : 4 * g + 8])) for g in range(3))
    assert within < between


def test_terminal_with_and_without_colours():
    trace = routed()
    layer = layer_of(trace, -1)
    plain = in_terminal(trace, SHOWN, layer, coloured=False)
    assert "\x1b" not in plain and re.sub(r"\[\d\]", "", plain) == "▸<b>··⏎\n·$x$ & y"
    assert plain.startswith(f"[{leading(layer)[0]}]▸")
    fancy = in_terminal(trace, SHOWN, layer, coloured=True)
    assert fancy.count("\x1b[48;2;") == len(IDS) == fancy.count("\x1b[0m")
    assert re.sub(r"\x1b\[[\d;]*m", "", fancy) == "▸<b>··⏎\n·$x$ & y"
    told = legend(trace, layer, coloured=False)
    assert told.count("node") == 4
    load = np.bincount(layer.chosen.reshape(-1), minlength=8) / layer.chosen.size * 8
    assert f"7  {load[7]:4.2f}" in told


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.titles, self.text, self.inside = [], [], "", False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = self.inside or tag == "pre"
        if tag == "span" and "title" in dict(attrs):
            self.titles.append(dict(attrs)["title"])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "pre"

    def handle_data(self, data):
        self.text += data if self.inside else ""


def test_the_page_holds_the_text_and_all_experts_and_loads_nothing():
    trace = routed()
    page = as_html(trace, SHOWN, "a <title> & more")
    reader = Reader()
    reader.feed(page)
    assert reader.text == "▸<b>··⏎\n·$x$ & y" and "b" not in reader.tags
    assert len(reader.titles) == len(IDS) and reader.tags.count("input") == 2
    best = int(leading(trace.layers[1])[3])
    gate = trace.layers[1].gates[0, 3].max()
    assert f"layers.4: {best} ({gate:.2f})" in reader.titles[3]
    assert "http" not in page and "script" not in reader.tags and "a &lt;title&gt;" in page


def test_the_picture_is_a_png_the_same_each_time():
    trace = routed()
    one, two = (as_png(trace, SHOWN, layer_of(trace, 1), "title") for _ in range(2))
    assert one.startswith(b"\x89PNG") and one == two
    assert as_png(trace, SHOWN, layer_of(trace, 4), "title") != one


def test_a_block_without_experts_is_refused():
    with pytest.raises(MinidsError, match=r"layer = 0: is no block with experts; there are 1, 4"):
        layer_of(routed(), 0)
