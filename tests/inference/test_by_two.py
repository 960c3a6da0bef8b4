"""Two threads for one sequence: the same bits as by one, and nobody left waiting whatever happens to the other."""

import threading

import numpy as np
import pytest
from support import TINY, build
from test_compiled import COVERED
from test_speculative import PROMPT, agreeable

from minids.inference.by_two import Turns, by_two
from minids.inference.cache import FullCache, LatentCache
from minids.inference.decode import logits_of, read, read_mtp
from minids.inference.generate import generate, tokens
from minids.inference.speculative import Counts

TOKENS = np.random.default_rng(0).integers(0, 19, 40)


def companions():
    return [t for t in threading.enumerate() if t.name == "minids companion"]


def caches(model):
    return LatentCache(model.config, 1, model.dtype), LatentCache(model.config, 1, model.dtype, layers=1)


@pytest.mark.parametrize("name", COVERED)
def test_a_pass_by_two_has_the_bits_of_a_pass_by_one(name):
    model = build(COVERED[name], dtype=np.float32)
    (ours, ours_mtp), (theirs, theirs_mtp) = caches(model), caches(model)
    read(model, TOKENS[None, :9], ours), read(model, TOKENS[None, :9], theirs)
    with by_two(model, ours, ours_mtp, 1) as pair:
        start = 9
        for count in (2, 3, 5, 2, 16):
            new = TOKENS[start : start + count]
            hidden, logits = pair.verify(new.tolist(), True)
            want = read(model, new[None], theirs)[0]
            assert np.array_equal(hidden, want), f"h⁰ of {count} tokens"
            assert np.array_equal(logits, logits_of(model, want, theirs)), f"logits of {count} tokens"
            start += count
        assert np.array_equal(ours.arrays[0][:, :, :start], theirs.arrays[0][:, :, :start])
        start = 0
        for count in (1, 2, 1, 4):
            before = np.random.default_rng(start).standard_normal((count, model.config.hidden_size)).astype(np.float32)
            new = TOKENS[start : start + count]
            state, logits = pair.guess(new, before, True)
            pair.mtp_cache.rewind(start)
            alone = pair.guess(new, before, False)
            assert np.array_equal(state, alone[0]) and np.array_equal(logits, alone[1]), f"alone, {count} tokens"
            want = read_mtp(model, 1, new, before, theirs_mtp)[-1:]
            assert np.abs(state - want).max() < 1e-4, f"state after {count} tokens"
            assert np.abs(logits - logits_of(model, want, theirs_mtp)).max() < 1e-4
            start += count
        assert ours_mtp.lengths == theirs_mtp.lengths
    assert not companions()


@pytest.mark.parametrize("draft_tokens", [1, 2, 4])
@pytest.mark.parametrize("depths", [1, 2])
def test_greedy_text_is_the_same_token_for_token(depths, draft_tokens):
    """Past the end of the context as well, where caches and companion are new."""
    model, counts = agreeable(depths), Counts()
    got = [t.id for t in tokens(model, PROMPT, 90, speculative=True, draft_tokens=draft_tokens, counts=counts, threads=2)]
    assert got == generate(model, PROMPT, 90).tolist()
    assert counts.tokens > counts.passes, "no guess stood"
    assert not companions()


def test_a_seed_draws_the_same_text_by_two_threads_and_by_one():
    model = build(TINY, dtype=np.float32)
    one, two = (generate(model, PROMPT, 60, 0.9, seed=3, speculative=True, threads=n) for n in (1, 2))
    assert np.array_equal(one, two)


def test_caches_may_grow_under_the_companions_hands():
    model = build(TINY.replace(max_position_embeddings=900), dtype=np.float32)
    one, two = (generate(model, PROMPT, 600, speculative=True, threads=n) for n in (1, 2))
    assert np.array_equal(one, two)


def test_a_companion_that_sleeps_is_woken():
    model = build(TINY, dtype=np.float32)
    cache, mtp_cache = caches(model)
    with by_two(model, cache, mtp_cache, 1) as pair:
        pair.verify([1, 2], True)
        board, serving = pair._board, pair.kernels.SERVING
        for _ in range(10_000):
            if board[serving] == 0:
                break
            threading.Event().wait(0.01)
        assert board[serving] == 0, "without orders the companion never goes to sleep"
        hidden, _ = pair.verify([3, 4], True)
    want = read(model, np.array([[1, 2, 3, 4]]), LatentCache(TINY, 1))[0, 2:]
    assert np.array_equal(hidden, want)


@pytest.mark.parametrize("who", ["leader", "companion"])
def test_an_error_of_either_frees_the_other_and_is_raised(who):
    model = build(TINY, dtype=np.float32)
    pair = by_two(model, *caches(model), 1)
    pair.verify([1, 2], True)

    class Failing:
        def __getattr__(self, name):
            return fail if name == "take_part" else getattr(real, name)

    def fail(leads, *rest):
        if leads == (who == "leader"):
            raise KeyboardInterrupt if who == "leader" else MemoryError("no more")
        return real.take_part(leads, *rest)

    real, pair.kernels = pair.kernels, Failing()
    if who == "companion":  # it leaves its loop when the caches move
        pair.cache.reserve(1 << 10)
    with pytest.raises(KeyboardInterrupt if who == "leader" else MemoryError):
        pair.verify([3, 4], True)
    assert not companions()


def test_a_text_that_is_not_read_to_its_end_leaves_no_thread():
    running = tokens(agreeable(1), PROMPT, 90, speculative=True, threads=2)
    for _ in range(25):
        next(running)
    assert len(companions()) == 1
    running.close()
    del running
    assert not companions()


def turns_taken(seconds, passes):
    """Who takes each pass, where a pass by two takes seconds[True] and by one seconds[False]."""
    turns, taken = Turns(), []
    for _ in range(passes):
        taken.append(turns.next())
        turns.took(seconds[taken[-1]])
    return taken


@pytest.mark.parametrize("faster", [True, False])
def test_who_was_faster_of_late_takes_most_passes(faster):
    taken = turns_taken({faster: 1.0, not faster: 2.0}, 2000)
    assert taken.count(faster) > 0.95 * len(taken)
    assert (not faster) in taken[900:], "the other is never tried again"


def test_a_machine_that_has_become_busy_is_noticed():
    turns = Turns()
    for number in range(4000):
        two = turns.next()
        turns.took((50.0 if number > 1500 else 1.0) if two else 2.0)
    assert not turns.two


def test_the_text_does_not_depend_on_who_reads_it(monkeypatch):
    """Every third pass by one thread."""
    model, passes = agreeable(1), iter(range(1 << 20))
    monkeypatch.setattr(Turns, "next", lambda self: next(passes) % 3 > 0)
    got = generate(model, PROMPT, 60, speculative=True, threads=2)
    assert np.array_equal(got, generate(model, PROMPT, 60))
    assert next(passes) > 20


def test_where_two_threads_cannot_be_used_one_has_to_do():
    model = build(TINY)
    latent, mtp = caches(model)
    assert by_two(model, latent, mtp, 1) is not None
    assert by_two(model, FullCache(TINY, 1, model.dtype), FullCache(TINY, 1, model.dtype, 1), 1) is None
    counts = Counts()
    steps = tokens(agreeable(1), PROMPT, 20, cache="full", speculative=True, threads=2, counts=counts)
    assert len(list(steps)) == 20 and not companions()
