"""Facts in text: every one whole, every question answerable, and from one place only."""

import numpy as np
import pytest

from minids.errors import MinidsError
from minids.lab.studies.needles import ASCII, KIND, KINDS, SAID, SIZE, VALUES, WithFacts, found, haystacks, plain
from minids.training.batches import Batches, TokenStream

TEXT = np.full(2000, ord("."), np.uint16)


def facts(row):
    """Place, kind and value of every fact; each must be whole, and its value one of its kind."""
    places = np.flatnonzero(row >= KIND)
    said = [(int(i), int(row[i]) - KIND, int(row[i + 1])) for i in places if i + 1 < len(row)]
    for _, kind, value in said:
        assert ASCII + VALUES * kind <= value < ASCII + VALUES * (kind + 1), "the value is not one of its kind"
    assert np.sum(row >= ASCII) == SIZE * len(said) + (row[-1] >= KIND), "a piece of a fact stands alone"
    return said


def supply(tokens, seed=1):
    stream = TokenStream(tokens, np.array([0, len(tokens)]))
    return WithFacts(Batches(stream, 40, 64, np.random.default_rng(0)), np.random.default_rng(seed))


def test_in_a_training_window_every_kind_has_one_value():
    tokens, targets = supply(TEXT).next()
    assert np.array_equal(tokens[:, 1:], targets[:, :-1])
    counts, values = [], set()
    for row in np.concatenate([tokens, targets[:, -1:]], axis=1):
        said = facts(row)
        assert all(len({value for _, other, value in said if other == kind}) <= 1 for kind in range(KINDS))
        counts.append(len(said))
        values |= {value for _, _, value in said}
    assert min(counts) >= SAID[0] and max(counts) <= SAID[1] and max(counts) - min(counts) > 10
    assert len(values) > 0.7 * KINDS * VALUES, "the same values in every window: they could be learned by heart"


def test_text_between_facts_is_as_it_was():
    text = np.random.default_rng(0).integers(0, ASCII, 900).astype(np.uint16)
    stream = TokenStream(text, np.array([0, 900]))
    before = Batches(stream, 40, 64, np.random.default_rng(0)).next()[0]
    tokens = supply(text).next()[0]
    kept = tokens < ASCII
    assert np.array_equal(tokens[kept], before[kept]) and 0.2 < kept.mean() < 0.9


def test_bytes_of_facts_do_not_occur_in_text():
    assert plain(np.array([0, 127, 128, 200, 255, 256, 257])).tolist() == [0, 127, 63, 63, 63, 256, 257]
    odd = np.full(900, 195, np.uint16)  # a byte of many a UTF-8 text
    assert all(len(facts(row)) <= SAID[1] for row in supply(odd).next()[0][:, :-1])


@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 1.0])
def test_the_needle_lies_at_its_depth_and_answers_the_question(depth):
    hay = haystacks(TEXT, np.random.default_rng(1), 40, 64, depth)
    assert hay.tokens.shape == (40, 64) and hay.answers.shape == (40,)
    asked = set()
    for row, answer in zip(hay.tokens, hay.answers, strict=True):
        said, kind = facts(row), int(row[-1]) - KIND
        assert sorted(other for _, other, _ in said) == list(range(KINDS)), "one fact of every kind"
        ((at, _, value),) = [fact for fact in said if fact[1] == kind]
        assert value == answer and at == round(depth * (64 - 1 - SIZE)), "not what or where it was asked for"
        asked.add(kind)
    assert asked == set(range(KINDS))


def test_misleading_facts_lie_on_either_side():
    hay = haystacks(TEXT, np.random.default_rng(1), 200, 128, 0.5)
    before = [sum(at < round(0.5 * (127 - SIZE)) for at, _, _ in facts(row)) for row in hay.tokens]
    assert 1.3 < np.mean(before) < 1.7, "of three others half, on average"


def test_a_context_without_room_is_refused():
    with pytest.raises(MinidsError, match="room = 3: 3 facts of 2 tokens need 6"):
        haystacks(TEXT, np.random.default_rng(0), 1, 6, 0.0)


def test_an_answer_counts_when_it_is_the_most_likely_token():
    logits = np.zeros((2, 9, 10))
    logits[0, 8, 3], logits[1, 7, 5], logits[1, 8, 6] = 1, 2, 1
    assert found(logits, np.array([3, 5])).tolist() == [True, False]
