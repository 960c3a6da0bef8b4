"""Generation: the same text by every cache, seeds, stop tokens, and what happens past the context."""

import numpy as np
import pytest
from support import TINY, build

from minids.checkpoint.tokenizer import byte_tokenizer
from minids.errors import MinidsError
from minids.inference.generate import generate, generate_batch, stream
from minids.inference.speculative import Counts

MODEL = build(TINY)


def by_hand(model, text, count):
    """Greedy, everything read again for each token, the window halved when it is full."""
    limit, out = model.config.max_position_embeddings, []
    for _ in range(count):
        if len(text) > limit:
            text = text[-(limit // 2) :]
        out.append(int(model.logits(np.array([text]))[0, -1].argmax()))
        text = [*text, out[-1]]
    return out


@pytest.mark.parametrize("cache", ["latent", "full", "none"])
@pytest.mark.parametrize("length", [1, 5, 64])
def test_greedy_text_is_the_same_by_every_cache(cache, length):
    prompt = np.random.default_rng(1).integers(0, 19, length).tolist()
    assert generate(MODEL, prompt, 90, cache=cache).tolist() == by_hand(MODEL, prompt, 90)


def test_a_prompt_longer_than_the_context_keeps_its_end():
    prompt = np.random.default_rng(2).integers(0, 19, 100).tolist()
    assert generate(MODEL, prompt, 5).tolist() == by_hand(MODEL, prompt[-64:], 5)


def test_the_seed_decides_and_the_cache_does_not():
    a = generate(MODEL, [1, 2], 40, temperature=1.0, seed=3)
    assert np.array_equal(a, generate(MODEL, [1, 2], 40, temperature=1.0, seed=3, cache="full"))
    assert not np.array_equal(a, generate(MODEL, [1, 2], 40, temperature=1.0, seed=4))


def test_a_stop_token_ends_the_text_and_is_included():
    text = generate(MODEL, [1, 2], 30, temperature=1.0, seed=0).tolist()
    stop = text[10]
    stopped = generate(MODEL, [1, 2], 30, temperature=1.0, seed=0, stop=[stop]).tolist()
    assert stopped == text[: text.index(stop) + 1]


def test_streaming_gives_tokens_one_by_one():
    tokens = stream(MODEL, [1, 2], 1000)
    assert next(tokens).id == generate(MODEL, [1, 2], 1)[0]


def test_a_text_prompt_goes_through_the_tokenizer():
    model = build(TINY.replace(vocab_size=258, bos_token_id=256, eos_token_id=257))
    model.tokenizer = byte_tokenizer()
    assert np.array_equal(generate(model, "abc", 5), generate(model, [97, 98, 99], 5))
    assert np.array_equal(generate(model, "", 5), generate(model, [256], 5)), "an empty prompt begins a document"


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([19], {}, "tokens.*= 19: token ids of this model run from 0 to 18"),
        ([-1], {}, "-1"),
        ([], {}, "prompt: empty"),
        ("text", {}, "no tokenizer"),
        ([1], {"max_new_tokens": -1}, "max_new_tokens = -1"),
        ([1], {"cache": "paged"}, "cache = 'paged'"),
        ([1], {"temperature": -0.5}, "temperature"),
        ([1], {"seed": -1}, "seed = -1"),
        ([[1, 2], [3, 4]], {}, "is several sequences; minids.generate_batch continues those"),
        ([1], {"max_new_tokens": 2.5}, "max_new_tokens = 2.5: must be a whole number"),
        ([1], {"stop": "e"}, "stop = 'e': this model has no tokenizer"),
        ([1], {"stop": 3}, "stop = 3: must be a list"),
        ([1], {"draft_tokens": 2}, "draft_tokens = 2: concerns guesses"),
        ([1], {"confidence": 0.5}, "confidence = 0.5: concerns guesses"),
        ([1], {"counts": Counts()}, "counts = Counts.*: concerns guesses"),
        ([1], {"min_p": 1.5}, "min_p = 1.5: must be a finite number of at least 0 and not above 1"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(prompt, options, message):
    with pytest.raises(MinidsError, match=message):
        generate(MODEL, prompt, **({"max_new_tokens": 3} | options))


def test_attention_without_a_latent_has_no_latent_cache():
    with pytest.raises(MinidsError, match="no latent to cache"):
        generate(build(TINY.replace(attention="mha")), [1], 1, cache="latent")


def test_one_text_is_no_batch():
    with pytest.raises(MinidsError, match="prompts = 'def ': is one text"):
        generate_batch(MODEL, "def ", 1)
