"""What notebooks draw: the choices that pictures make anew are the model's, and nothing but numbers goes into a page."""

import json
import re

import numpy as np
import pytest

from minids.lab import notebook
from minids.lab.figures.trained import through
from minids.lab.plots import attention, balance, experts, gradients, latent, positions, tour
from minids.model import DeepSeekV3


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


def test_the_record_of_the_training_ends_with_the_model_itself(read):
    model, tokens, pieces = read
    drawn = experts.Router(model, tokens, pieces)
    training = experts.Training(drawn)
    assert training.steps[0] == 0 and training.steps == sorted(set(training.steps))
    assert set(training.shown) <= set(training.steps) and training.last == 1750
    last = training.at(training.last)
    for block, scores in drawn.scores.items():
        np.testing.assert_allclose(last.scores[block], scores, atol=5e-4)  # kept as float16
        assert np.array_equal(last.bias[block], drawn.bias[block])
        assert np.mean(last.routed(block).chosen == drawn.routed(block).chosen) > 0.95


def test_the_record_of_the_training_begins_with_the_weights_of_its_seed(read):
    model, tokens, pieces = read
    began = experts.Router(DeepSeekV3(model.config, seed=0), tokens, pieces)
    first = experts.Training(began).at(0)
    for block, scores in began.scores.items():  # token 0 begins every document, whatever the tokenizer
        np.testing.assert_allclose(first.scores[block][0], scores[0], atol=5e-4)
        assert not first.bias[block].any(), "nothing is balanced yet"


def test_digits_together_are_counted_by_their_strongest_expert(read):
    training = experts.Training(experts.Router(*read))
    strongest = [e for piece, e in zip(training.now.pieces, training.at(50).strongest(2), strict=True) if piece.isdigit()]
    assert training.together(50) == (max(strongest.count(e) for e in strongest), 6)


def test_the_page_of_the_router_holds_the_scores_and_fetches_nothing(read):
    model, tokens, pieces = read
    drawn = experts.Router(model, tokens, pieces)
    training = experts.Training(drawn)
    page = drawn.page(training).page
    data = json.loads(re.search(r"const D = (\{.*\});", page)[1])
    assert data["steps"] == [*training.shown, training.last] and len(data["scores"]) == len(data["steps"])
    assert data["pieces"] == pieces and len(data["scores"][0]) == len(data["layers"]) == 3
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


SLIDERS = [  # a drawing that moves, at ends of its sliders
    (positions.pairs, dict(distance=2000, base=100)),
    (positions.slowed, dict(factor=1, base=500000, trained=2048)),
    (positions.slowed, dict(factor=64, base=10000, trained=8192)),
    (attention.conversation, dict(tokens=160_000, heads=128, groups=16, latent=1024, bits=16)),
    (latent.border, dict(context=131072, latent=160)),
    (experts.planes, dict(bias=-0.5)),
    (balance.thermostat, dict(gamma=0.1, steps=50, popularity_spread=0.0, tokens=128)),
    (gradients.perpendicular, dict(direction=360)),
]


@pytest.mark.parametrize("draw, ends", SLIDERS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_drawing_with_sliders_draws_at_their_ends(shown, draw, ends):
    draw(**ends)
    (figure, alt), *others = shown
    assert not others and alt.endswith(".")
    figure.canvas.draw()


def test_what_is_kept_of_the_studies_is_what_the_pages_show(shown):
    positions.four_times_as_long()
    latent.rotary_part(np.full((4, 4), 0.98))
    long, clip = (texts(figure) for figure, _ in shown)
    assert "no extension 12.8" in long and "interpolation 13.8" in long and "YaRN 9.1" in long
    assert "muon, clipped" in clip
