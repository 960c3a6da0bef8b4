"""What notebooks draw: the choices that pictures make anew are the model's, and nothing but numbers goes into a page."""

import json
import re

import numpy as np
import pytest

from minids.lab import notebook
from minids.lab.figures.trained import through
from minids.lab.plots import attention, experts, tour


@pytest.fixture
def shown(monkeypatch):
    """The pictures that were shown, and what they say to those who do not see them."""
    found = []
    monkeypatch.setattr(notebook, "show", lambda figure, alt: found.append((figure, alt)))
    return found


def texts(figure):
    return " ".join(t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.fixture(scope="module")
def read():
    model = notebook.model()
    return model, *notebook.read(model)


def test_cards_fill_with_the_tokens_and_only_mha_minds_the_heads(shown):
    attention.conversation(tokens=20_000)
    attention.conversation(tokens=20_000, heads=64)
    attention.conversation(tokens=0)
    first, half, none = (texts(figure) for figure, _ in shown)
    assert "80.0 GB" in first and "5.0 GB" in first and "1.4 GB" in first
    assert "40.0 GB" in half and "5.0 GB" in half and "1.4 GB" in half
    assert none.count("0.0 GB") == 4
    assert all("MLA 2.063" in words and "MHA 2.024" in words for words in (first, half, none)), "the kept study's means"


def test_the_router_of_the_pictures_chooses_as_the_model_does(read):
    model, tokens, pieces = read
    drawn = experts.Router(model, tokens, pieces)
    for at in through(model, tokens):
        if at.routing is None:
            continue
        found = drawn.routed(at.index)
        assert np.array_equal(found.chosen, at.routing.chosen)
        np.testing.assert_allclose(found.gates, at.routing.gates, rtol=1e-6)
        without = drawn.routed(at.index, bias=False, kept=model.config.n_group)
        assert np.array_equal(np.sort(without.chosen), np.sort(np.argsort(-at.routing.scores)[:, :4]))


def test_the_page_of_the_router_holds_the_scores_and_fetches_nothing(read):
    model, tokens, pieces = read
    page = experts.Router(model, tokens, pieces).page().page
    data = json.loads(re.search(r"const D = (\{.*\});", page)[1])
    assert data["pieces"] == pieces and len(data["scores"]) == len(data["layers"]) == 3
    assert not re.search(r"https?:|src=|@import", page)
    assert "{{" not in page


def test_a_sentence_says_which_block_it_is_coloured_by(read, shown):
    drawn = experts.Router(*read)
    drawn.sentence(block=1, bias=False)
    drawn.choice(token=3, block=3)
    assert "Block 1, bias off" in texts(shown[0][0]) and "“um” in block 3" in texts(shown[1][0])


def test_the_parts_stand_by_their_year(shown):
    tour.parts_by_year()
    figure, _ = shown[0]
    years = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert years[-3:] == [2024.98] * 3 and min(years) > 2017
