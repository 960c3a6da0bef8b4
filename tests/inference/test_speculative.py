"""Speculation loses nothing: greedily the same text, drawn the same distribution, whatever the modules guess."""

from collections import Counter

import numpy as np
import pytest
from support import TINY, build

from minids.backend import op, use_backend
from minids.errors import MinidsError
from minids.inference import speculative
from minids.inference.decoder import Decoder
from minids.inference.generate import generate, stream
from minids.inference.sampling import Sampling
from minids.inference.speculative import Counts, Draft, guess, judge

MODELS = {depths: build(TINY.replace(num_nextn_predict_layers=depths)) for depths in (1, 2, 3)}
PROMPT = [3, 1, 4, 1, 5]


def agreeable(depths, seed=0, **changes):
    """A model whose modules often guess what it says: all but the embedding and the head adds little."""
    model = build(TINY.replace(num_nextn_predict_layers=depths, **changes), seed, lively=False)
    for p in model.parameters:
        if "down_proj" in p.name or "o_proj" in p.name:
            p.value[...] *= 0.05
        if "eh_proj" in p.name:  # the embedding goes through, the state does not
            d = p.shape[0]
            p.value[:, :d], p.value[:, d:] = np.eye(d), 0.05 * p.value[:, d:]
    return model


@pytest.mark.parametrize("cache", ["latent", "full"])
@pytest.mark.parametrize("draft_tokens", [1, 2, 3, 5])
@pytest.mark.parametrize("depths", [1, 2, 3])
@pytest.mark.parametrize("make", [lambda d: MODELS[d], agreeable], ids=["stranger", "agreeable"])
def test_greedy_text_is_the_same_token_for_token(make, depths, draft_tokens, cache):
    """Past the end of the context as well, where reading starts again."""
    model, counts = make(depths), Counts()
    plain = generate(model, PROMPT, 90)
    got = [t.id for t in stream(model, PROMPT, 90, cache=cache, speculative=True, draft_tokens=draft_tokens, counts=counts)]
    assert got == plain.tolist()
    if make is agreeable:
        assert counts.acceptance[0] > 0.5, f"the modules agree too rarely to test anything: {counts}"
        assert counts.tokens > counts.passes
    assert counts.tokens == counts.passes + sum(counts.accepted)


def test_nothing_is_read_beyond_the_context_that_the_model_was_made_for(monkeypatch):
    """However many guesses are asked for: a model that hardly looks back would give the same text."""
    read, ends = Decoder.read, []
    monkeypatch.setattr(Decoder, "read", lambda self, x: ends.append(int(self.lengths[0]) + x.shape[1]) or read(self, x))
    generate(agreeable(2), PROMPT, 90, speculative=True, draft_tokens=5)
    assert max(ends) == TINY.max_position_embeddings


@pytest.mark.parametrize("confidence", [0.2, 0.9])
def test_a_draft_that_ends_where_it_is_unsure_gives_the_same_text(confidence):
    model, counts = agreeable(2), Counts()
    got = [t.id for t in stream(model, PROMPT, 60, speculative=True, draft_tokens=4, confidence=confidence, counts=counts)]
    assert got == generate(model, PROMPT, 60).tolist()


@pytest.mark.parametrize(
    ("p", "confidence", "goes_on"),
    [(0.6, 0.55, True), (0.6, 0.65, False), (0.6, 0.0, True), (0.3, 0.29, True), (0.3, 0.31, False)],
)
@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(1.0)], ids=["greedy", "drawn"])
def test_a_draft_goes_on_exactly_where_the_best_guess_has_the_probability_asked_for(sampling, p, confidence, goes_on):
    others = (1 - p) * np.array([0.25, 0.25, 0.25, 0.25])
    logits = np.log(np.insert(others, 2, p)) + 7  # that they are logits and no log-probabilities does not matter
    made = guess(logits, sampling, confidence, np.random.default_rng(0))
    assert (made is not None) == goes_on
    if made and sampling.temperature:
        np.testing.assert_allclose(made[1], np.insert(others, 2, p))
    elif made:
        assert made == (2, None)


def test_what_a_drawn_draft_is_sure_of_is_the_distribution_it_draws_from():
    """Half as hot, 0.6 among 0.1s is 0.9."""
    logits, rng = np.log([0.6, 0.1, 0.1, 0.1, 0.1]), np.random.default_rng(0)
    assert guess(logits, Sampling(0.5), 0.89, rng) and not guess(logits, Sampling(0.5), 0.91, rng)


def test_tokens_know_whether_they_were_guessed():
    model, counts = agreeable(2), Counts()
    tokens = list(stream(model, PROMPT, 40, speculative=True, counts=counts))
    assert not tokens[0].drafted, "the first comes of the prompt alone"
    refused = sum(counts.submitted) - sum(counts.accepted)  # but of a pass that the length cut short
    assert refused - 1 <= sum(t.refused is not None for t in tokens) <= refused and not tokens[0].refused
    unasked = sum(counts.accepted) - sum(t.drafted for t in tokens)
    assert 0 <= unasked <= 2, "all that stood but for some of the last pass"
    assert not any(t.drafted for t in stream(model, PROMPT, 10))
    for i in range(len(tokens) - 2):
        assert not all(t.drafted for t in tokens[i : i + 3]), "three guesses in a row, where two are made a pass"


@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize("state", ["normed", "unnormed"])
@pytest.mark.parametrize("depths", [1, 2, 3])
def test_what_the_modules_are_shown_is_what_one_pass_over_the_text_shows_them(depths, state, more):
    """The guesses of every round equal those of the model's own parallel MTP pass, however many are made: nothing stale is left
    in a cache, and a guess does not depend on how many follow it."""
    model = agreeable(depths, mtp_state=state)
    seen = []
    guess = speculative.Drafter.draft

    def spying(self, text, *rest):
        draft = guess(self, text, *rest)
        seen.append((list(text), draft.tokens))
        return draft

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speculative.Drafter, "draft", spying)
        generate(model, PROMPT, 50, speculative=True, draft_tokens=depths + more)
    for text, draft in seen:
        for depth in range(1, depths + 1):
            known = np.array([text + draft[: depth - 1]])
            assert draft[depth - 1] == model.mtp_logits(known)[depth - 1][0, -1].argmax(), (
                f"depth {depth} after {len(text)} tokens"
            )


def first_guesses(model, draft_tokens, **options):
    """{tokens of text: (the first guess there, how many followed it)}."""
    seen = {}
    draft = speculative.Drafter.draft

    def spying(self, text, *rest):
        made = draft(self, text, *rest)
        seen[tuple(text)] = made.tokens[0], len(made.tokens)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speculative.Drafter, "draft", spying)
        generate(model, PROMPT, 55, speculative=True, draft_tokens=draft_tokens, **options)
    return seen


def stranger(depths, **changes):
    return build(TINY.replace(num_nextn_predict_layers=depths, **changes))


@pytest.mark.parametrize(
    ("make", "depths", "own", "cache"),
    [
        (stranger, 1, True, "full"),
        (stranger, 2, False, "latent"),
        (agreeable, 1, False, "latent"),
        (agreeable, 2, True, "full"),
    ],
)
def test_the_first_guess_does_not_depend_on_how_many_are_made(make, depths, own, cache):
    """So its acceptance does not either: more guesses leave nothing behind that the next round would start from."""
    model = make(depths, mtp_own_matrices=own)
    alone, company = first_guesses(model, 1, cache=cache), []
    for draft_tokens in (2, 3, 6):
        for text, (guessed, made) in first_guesses(model, draft_tokens, cache=cache).items():
            assert guessed == model.mtp_logits([text])[0][0, -1].argmax()
            if text in alone:
                assert guessed == alone[text][0]
                company.append(made)
    assert len(company) >= 3 and max(company) > 2, "no place was guessed from both ways"


@pytest.mark.parametrize("compiled", ["numba", "numpy"])
@pytest.mark.parametrize("state", ["normed", "unnormed"])
@pytest.mark.parametrize("depths", [1, 2])
def test_beyond_the_last_module_its_state_is_carried_as_its_block_left_it(depths, state, compiled):
    """By hand: the module's own layers over all that it was shown, and no norm but the head's."""
    if compiled == "numba":
        pytest.importorskip("numba")
    model = build(TINY.replace(num_nextn_predict_layers=depths, mtp_state=state), seed=5)
    text, more = [3, 1, 4, 1, 5, 9, 2], 3
    tokens = np.array([text])
    h = model.hidden_states(tokens[:, :-1])[0]  # of all that the model has read: the last token is drawn, and no more
    guesses, shown = [], list(text)
    for depth in range(1, depths + 1):
        module = model.mtp[depth - 1]
        embedding = model.embed_tokens.forward(np.array([shown[depth:]]))[0]
        before = h
        raw = unnormed(module, embedding, before, model)
        h = module.norm.forward(raw)[0] if state == "normed" else raw
        guesses.append(int(model.head.forward(module.norm.forward(raw)[0])[0][0, -1].argmax()))
        shown.append(guesses[-1])
    for _ in range(more):  # the last module, on all that it has read and its own newest state
        before = np.concatenate([before, raw[:, -1:]], axis=1)
        embedding = np.concatenate([embedding, model.embed_tokens.forward(np.array([guesses[-1:]]))[0]], axis=1)
        raw = unnormed(module, embedding, before, model)
        guesses.append(int(model.head.forward(module.norm.forward(raw)[0])[0][0, -1].argmax()))
    with use_backend(compiled):
        decoder = Decoder(model)
        drafter = speculative.Drafter(decoder, speculative.Speculation(depths + more), Sampling(), np.random.default_rng(0))
        drafter.observe(decoder.read(tokens[:, :-1])[0])
        assert drafter.draft(text, depths + more).tokens == guesses


def unnormed(module, embedding, before, model):
    """What the block of an MTP module makes of what it is shown, (1, S, d)."""
    x = op.mtp_combine.forward(embedding, before, module.enorm.value, module.hnorm.value, module.eh_proj.value, module.eps)[0]
    return module.block.forward(x, model.rotary(x.shape[1]))[0]


class Script:
    """Plays every way that chance can go, one per run: a depth-first walk through all draws with their probabilities."""

    def __init__(self):
        self.path, self.at, self.weight = [], 0, 1.0

    def choose(self, probabilities):
        options = [i for i, p in enumerate(probabilities) if p > 1e-15]
        if self.at == len(self.path):
            self.path.append([0, len(options)])
        index = options[self.path[self.at][0]]
        self.at += 1
        self.weight *= probabilities[index]
        return index

    def next_run(self):
        """Whether there is another way; the script is then at its beginning."""
        while self.path and self.path[-1][0] == self.path[-1][1] - 1:
            self.path.pop()
        self.at, self.weight = 0, 1.0
        if not self.path:
            return False
        self.path[-1][0] += 1
        return True


SMALL = dict(vocab_size=3, num_hidden_layers=1, num_attention_heads=2, first_k_dense_replace=0)


@pytest.mark.parametrize(
    ("depths", "draft_tokens", "sampling", "confidence"),
    [
        (1, 1, Sampling(1.0), 0.0),
        (1, 2, Sampling(0.7), 0.0),
        (2, 2, Sampling(1.0), 0.0),
        (1, 2, Sampling(1.0, top_k=2), 0.0),
        (1, 2, Sampling(1.0, top_p=0.8), 0.45),
        (1, 2, Sampling(2.0, min_p=0.2), 0.0),
    ],
)
def test_every_way_that_chance_can_go_adds_up_to_the_models_distribution(
    monkeypatch, depths, draft_tokens, sampling, confidence
):
    """Exact: the speculative decoder itself is run once for each outcome of each draw, and the weights are added up."""
    model = build(TINY.replace(**SMALL, num_nextn_predict_layers=depths), seed=3)
    length, script, found = 3, Script(), Counter()
    monkeypatch.setattr(speculative, "accepts", lambda p, rng: script.choose([1 - min(p, 1), min(p, 1)]) == 1)
    monkeypatch.setattr(speculative, "drawn", lambda p, rng: script.choose(p / p.sum()))
    monkeypatch.setattr(Sampling, "draw", lambda self, logits, rng: script.choose(self.probabilities(logits)))
    runs = 0
    while True:
        options = dict(top_k=sampling.top_k, top_p=sampling.top_p, min_p=sampling.min_p, confidence=confidence)
        options |= dict(speculative=True, draft_tokens=draft_tokens)
        text = tuple(generate(model, [0, 2], length, sampling.temperature, **options).tolist())
        found[text] += script.weight
        runs += 1
        if not script.next_run():
            break
    assert abs(sum(found.values()) - 1) < 1e-9
    assert runs > len(found), "no text came about in two ways: nothing was ever refused"
    for text in np.ndindex(*[3] * length):
        p = 1.0
        for i, token in enumerate(text):
            p *= sampling.probabilities(model.logits(np.array([[0, 2, *text[:i]]]))[0, -1])[token]
        assert abs(found[text] - p) < 1e-9, f"{text} has probability {p:.6f} and came with {found[text]:.6f}"


def test_drawn_texts_follow_the_models_distribution():
    """The same with real draws: chi-squared over all texts of two tokens."""
    model, runs, rng = build(TINY.replace(**SMALL), seed=3), 3000, np.random.default_rng(0)
    p = Sampling(1.0).probabilities(model.logits(np.array([[0]]))[:, -1])[0]
    expected = np.array([p[a] * Sampling(1.0).probabilities(model.logits(np.array([[0, a]]))[:, -1])[0] for a in range(3)])
    observed = np.zeros((3, 3))
    for _ in range(runs):
        observed[tuple(generate(model, [0], 2, 1.0, seed=rng, speculative=True, draft_tokens=1))] += 1
    chi2 = ((observed - runs * expected) ** 2 / (runs * expected)).sum()
    assert chi2 < 26.1, f"chi² = {chi2:.1f} with 8 degrees of freedom; 26.1 is passed once in a thousand"


def test_refused_guesses_are_replaced_from_what_the_draft_left_out():
    p, q = np.array([[0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]), np.array([0.7, 0.2, 0.1])
    rng, outcomes = np.random.default_rng(0), Counter()
    for _ in range(4000):
        stood, token = judge(Draft([0], [q]), p, rng)
        outcomes[stood, token] += 1
    assert outcomes[0, 0] == 0, "a refused token came back"
    assert abs(sum(n for (stood, _), n in outcomes.items() if stood) / 4000 - 0.1 / 0.7) < 0.02
    assert abs(outcomes[0, 1] / (outcomes[0, 1] + outcomes[0, 2]) - 0.4 / 0.6) < 0.03


@pytest.mark.parametrize("options", [dict(), dict(speculative=True), dict(temperature=1.5, top_k=5)], ids=str)
def test_log_probabilities_are_those_of_the_models_own_distribution(options):
    model = agreeable(1)
    new = list(stream(model, PROMPT, 20, **options))
    logits = model.logits(np.array([[*PROMPT, *(token.id for token in new)]]))[0, len(PROMPT) - 1 : -1]  # (20, V)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    want = np.log(p[np.arange(20), [token.id for token in new]])
    assert np.abs(np.array([token.log_probability for token in new]) - want).max() < 1e-10


def test_what_was_counted_adds_up():
    counts = Counts()
    for drafted, stood in ((2, 2), (2, 0), (1, 1), (3, 1)):
        counts.add(drafted, stood)
    assert (counts.passes, counts.tokens) == (4, 3 + 1 + 2 + 2)
    assert (counts.submitted, counts.accepted) == ([4, 2, 0], [3, 1, 0])
    assert counts.acceptance[:2] == [0.75, 0.5] and np.isnan(counts.acceptance[2])
    assert counts.tokens_per_pass == 2 and np.isnan(Counts().tokens_per_pass)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(draft_tokens=0), "draft_tokens = 0"),
        (dict(cache="none"), "cache = 'none'"),
        (dict(confidence=1.0), "confidence = 1"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(options, message):
    with pytest.raises(MinidsError, match=message):
        generate(MODELS[1], [1], 2, speculative=True, **options)
    with pytest.raises(MinidsError, match="no MTP module"):
        generate(build(TINY.replace(num_nextn_predict_layers=0)), [1], 2, speculative=True)
