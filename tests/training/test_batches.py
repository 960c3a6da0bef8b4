"""Batches: what an epoch visits, what a target is, and that a stopped run goes on as if it had not stopped."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minids.checkpoint.tokenizer import byte_tokenizer
from minids.errors import MinidsError
from minids.training.batches import Batches, TokenStream, spread_windows, validation_windows
from minids.training.corpus import Document


def numbered(*lengths: int) -> TokenStream:
    """Documents whose tokens are 0, 1, 2 … over all of them, so that a token says where it was taken from."""
    return TokenStream(np.arange(sum(lengths), dtype=np.int32), np.cumsum([0, *lengths]))


def test_documents_are_laid_out_with_begin_and_end():
    stream = TokenStream.encode([Document("a", "1", b"hi"), Document("a", "2", "é".encode())], byte_tokenizer())
    assert stream.tokens.tolist() == [256, *b"hi", 257, 256, *"é".encode(), 257]
    assert stream.starts.tolist() == [0, 4, 8]
    assert stream.tokens.dtype == np.uint16 and len(stream) == 8


def test_a_tokenizer_without_specials_adds_none():
    plain = byte_tokenizer()
    plain.bos_id = plain.eos_id = None
    assert TokenStream.encode([Document("a", "1", b"hi")], plain).tokens.tolist() == [*b"hi"]
    assert len(TokenStream.encode([], plain)) == 0


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.int32)])
def test_a_token_takes_two_bytes_where_every_token_of_the_vocabulary_fits_into_them(vocab_size, dtype):
    tokenizer = SimpleNamespace(vocab_size=vocab_size, bos_id=vocab_size - 1, eos_id=None, encode=lambda text: np.arange(2))
    tokens = TokenStream.encode([Document("a", "1", b"hi")], tokenizer).tokens
    assert tokens.dtype == dtype and tokens.tolist() == [vocab_size - 1, 0, 1]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 30), st.integers(1, 7), st.integers(0, 2**32))
def test_an_epoch_visits_every_place_at_most_once_and_targets_follow_their_tokens(lengths, context, batch, seed):
    assume(sum(lengths) > 1)
    context = min(context, sum(lengths) - 1)
    stream = numbered(*lengths)
    batches = Batches(stream, batch, context, np.random.default_rng(seed))
    inputs, targets = [], []
    for _ in range(-(-2 * batches.windows_per_epoch // batch)):
        x, y = batches.next()
        assert x.shape == y.shape == (batch, context) and x.dtype == y.dtype == np.int32
        assert x.flags.c_contiguous and y.flags.c_contiguous
        assert (x[:, 1:] == y[:, :-1]).all(), "a target is not the next token of its row"
        inputs.append(x)
        targets.append(y)
    inputs, targets = np.concatenate(inputs), np.concatenate(targets)
    starts = set(stream.starts[:-1].tolist())
    for token, target in zip(inputs.ravel().tolist(), targets.ravel().tolist(), strict=True):
        if token + 1 in starts or token + 1 == len(stream):
            assert target in starts, f"after the end of a document comes {target}, which begins none"
        else:
            assert target == token + 1, f"after {token} comes {target}, not the next token of the document"
    per_epoch = batches.windows_per_epoch
    assert per_epoch == len(stream) // context
    for epoch in (inputs[:per_epoch], inputs[per_epoch : 2 * per_epoch]):
        assert len(np.unique(epoch)) == per_epoch * context, "an epoch visited a place twice"


def test_every_epoch_has_another_order_and_other_cuts():
    stream = numbered(10, 20, 30, 40)
    batches = Batches(stream, 10, 10, np.random.default_rng(0))
    first, second = batches.next()[0], batches.next()[0]
    assert batches.epoch == 1
    assert not np.array_equal(first, second)
    assert not np.array_equal(np.sort(first[:, 0]), np.sort(second[:, 0])), "the windows were cut at the same places"
    followers = set()
    for _ in range(40):
        x, y = batches.next()
        followers |= set(y[x == 9].tolist())  # what came after the end of the first document
    assert followers == {10, 30, 60}, f"the documents keep their order: only {followers} follow the first"


def test_one_document_is_cut_at_other_places_every_epoch():
    batches = Batches(numbered(100), 10, 10, np.random.default_rng(0))
    offsets = {int(batches.next()[0][0, 0]) % 10 for _ in range(20)}
    assert len(offsets) > 5, f"one document was always cut at {offsets} mod 10"


def test_the_windows_of_an_epoch_come_in_a_shuffled_order():
    batches = Batches(numbered(1000), 100, 10, np.random.default_rng(0))
    firsts = batches.next()[0][:, 0]
    in_order = int(((firsts[1:] - firsts[:-1]) % 1000 == 10).sum())
    assert in_order < 10, f"{in_order} of 99 windows follow the one that lies before them in the text"


def test_the_seed_decides():
    def first(seed):
        return Batches(numbered(50, 50), 4, 8, np.random.default_rng(seed)).next()[0]

    assert np.array_equal(first(1), first(1)) and not np.array_equal(first(1), first(2))


@pytest.mark.parametrize("generator", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
@pytest.mark.parametrize("batch", [3, 4, 25])  # 12 windows an epoch: across its end, up to its end, over several
def test_a_run_continued_from_any_step_gets_the_batches_it_would_have_got(batch, generator):
    stream = numbered(7, 30, 12, 47)
    rng = np.random.Generator(generator(5))
    batches = Batches(stream, batch, 8, rng)
    seen, states = [], []
    for _ in range(12):
        states.append(json.loads(json.dumps(batches.state())))
        rng.random(3)  # somebody else uses the generator as well
        seen.append(batches.next())
    for stopped, state in enumerate(states):
        other_rng = np.random.Generator(generator(99))
        continued = Batches(stream, batch, 8, other_rng)
        continued.restore(state)
        for step in range(stopped, len(seen)):
            other_rng.random(3)
            for again, before in zip(continued.next(), seen[step], strict=True):
                assert np.array_equal(again, before), f"stopped before step {stopped}: step {step} came out differently"


def test_a_state_may_be_used_with_another_batch_size():
    stream = numbered(96)
    batches = Batches(stream, 3, 8, np.random.default_rng(0))
    batches.next()
    state = batches.state()
    expected = np.concatenate([batches.next()[0], batches.next()[0]])
    wide = Batches(stream, 6, 8, np.random.default_rng(1))
    wide.restore(state)
    assert np.array_equal(wide.next()[0], expected)


def test_a_state_of_another_run_is_refused():
    state = Batches(numbered(50, 50), 4, 8, np.random.default_rng(0)).state()
    for stream, context, field in (
        (numbered(50, 51), 8, "tokens"),
        (numbered(100), 8, "documents"),
        (numbered(50, 50), 9, "context_length"),
    ):
        with pytest.raises(MinidsError, match=field):
            Batches(stream, 4, context, np.random.default_rng(0)).restore(state)
    batches = Batches(numbered(50, 50), 4, 8, np.random.default_rng(0))
    for broken in ({}, {**state, "generator": {}}, {**state, "position": 13}, None):
        with pytest.raises(MinidsError):
            batches.restore(broken)
    with pytest.raises(MinidsError, match="random generator"):
        Batches(numbered(50, 50), 4, 8, np.random.Generator(np.random.MT19937(0))).restore(state)


def test_sizes_that_cannot_work_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(MinidsError, match=r"context_length = 100: .* at most 99"):
        Batches(numbered(60, 40), 4, 100, rng)
    assert Batches(numbered(60, 40), 1, 99, rng).next()[0].shape == (1, 99)
    for batch, context in ((0, 8), (4, 0)):
        with pytest.raises(MinidsError, match="must be at least 1"):
            Batches(numbered(60, 40), batch, context, rng)
    with pytest.raises(MinidsError, match="0 tokens"):
        Batches(numbered(), 4, 8, rng)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(2, 80), st.integers(1, 5), st.integers(1, 20), st.one_of(st.none(), st.integers(1, 100)))
def test_validation_counts_every_token_once_and_in_order(n, batch, context, limit):
    tokens = np.arange(n, dtype=np.uint16)
    counted = []
    for x, y in validation_windows(tokens, batch, context, limit):
        assert x.shape == y.shape and 1 <= len(x) <= batch and x.shape[1] == context and x.dtype == y.dtype == np.int32
        assert (y >= 0).any(axis=1).all(), "a row has nothing to predict"
        valid = y != -100
        assert (y[valid] == x[valid] + 1).all(), "a target is not the token that follows"
        assert not x[~valid].any(), "the last window is filled up with token 0"
        counted += y[valid].tolist()
    assert counted == list(range(1, min(n - 1, limit or n) + 1))


def test_validation_is_the_same_on_every_call():
    tokens = np.arange(100, dtype=np.uint16)
    for one, other in zip(validation_windows(tokens, 2, 16), validation_windows(tokens, 2, 16), strict=True):
        assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])


def test_validation_sizes_that_cannot_work_are_refused():
    for tokens, batch, context in ((np.zeros(1, np.int32), 2, 8), (np.zeros(9, np.int32), 0, 8), (np.zeros(9, np.int32), 2, 0)):
        with pytest.raises(MinidsError):
            list(validation_windows(tokens, batch, context))


def test_every_token_of_a_batch_knows_its_domain():
    """Each document holds one letter only, so that a token tells its domain: also across epochs and within a window."""
    documents = [Document("vowels" if c in "aeiou" else "others", c, c.encode() * (3 + i)) for i, c in enumerate("abcdeu")]
    stream = TokenStream.encode(documents, byte_tokenizer())
    batches = Batches(stream, 3, 7, np.random.default_rng(0))
    assert stream.domains == ("vowels", "others")
    for _ in range(5):
        tokens, _ = batches.next()
        domain = batches.kept[-1][2]
        assert domain.shape == tokens.shape
        letters = tokens < 256
        np.testing.assert_array_equal(domain[letters], ~np.isin(tokens[letters], list(b"aeiou")))
    batches = Batches(numbered(9, 9), 1, 4, np.random.default_rng(0))
    batches.next()
    assert batches.kept[-1][2] is None


@pytest.mark.parametrize(("length", "most"), [(1000, 128), (1000, 130), (1000, 999), (1000, 5000), (1000, 10), (33, 16)])
def test_a_short_look_at_a_long_text_meets_all_of_it(length, most):
    """As many whole windows as fit into the limit, at even distances; what is not longer than the limit is read whole."""
    tokens = np.arange(length)
    found = list(spread_windows(tokens, 3, 16, most))
    if most < 16 or most >= length - 1:
        whole = list(validation_windows(tokens, 3, 16, most))
        assert [x.tolist() for x, _ in found] == [x.tolist() for x, _ in whole]
        return
    rows, targets = (np.concatenate(part) for part in zip(*found, strict=True))
    assert rows.shape == targets.shape and len(rows) == min(most // 16, (length - 1) // 16)
    assert rows.dtype == targets.dtype == np.int32 and all(len(x) <= 3 for x, _ in found)
    np.testing.assert_array_equal(targets, rows + 1)
    np.testing.assert_array_equal(rows, rows[:, :1] + np.arange(16))
    assert rows[0, 0] == 0
    if len(rows) > 1:
        distances = np.diff(rows[:, 0])
        assert (distances >= 16).all() and np.ptp(distances) <= 16, "uneven, or twice the same tokens"
        assert rows[-1, 0] + max(distances) + 16 >= length - 16, "the end of the text is never read"
