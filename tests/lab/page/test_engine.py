"""The engine in JavaScript and NumPy in float64 give the same numbers on the same stored weights. Needs Node."""

import numpy as np
import pytest
from support import TINY
from support_page import CONFIGS, in_node, packed, plain

from minids import pico
from minids.checkpoint.tokenizer import byte_tokenizer, character_tokenizer, train_bpe
from minids.lab.page.expected import experts, mtp_logits
from minids.ops.float8 import E4M3

pytestmark = pytest.mark.page

TOKENS = np.random.default_rng(3).integers(0, TINY.vocab_size, 20).tolist()
GREEDY = dict(temperature=0, seed=0, guesses=0, stop=None)


@pytest.mark.parametrize("weights", ["fp8", "float16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_experts_and_guesses_are_those_of_numpy(name, weights):
    config = CONFIGS[name]
    model, stored = packed(config, weights)
    depth = config.num_nextn_predict_layers
    [got] = in_node(dict(what="read", model=model, config=plain(config), tokens=TOKENS, depth=depth))
    tokens = np.array([TOKENS])
    want = pico.deepseek_v3(tokens, stored, config)[0]
    assert np.abs(np.array(got["logits"]) - want).max() < 1e-6
    for layer, chosen in enumerate(experts(tokens, stored, config)):
        there = [at[layer] for at in got["experts"]]
        assert (chosen is None and set(map(str, there)) == {"None"}) or [sorted(at) for at in there] == chosen
    for k in range(1, depth + 1):
        want = mtp_logits(tokens, stored, config, k)[0]
        # Module k at position i has its real token once t = i + 1 and the guesses after it are the text's own.
        for at in got["mtp"][k - 1]:
            assert np.abs(np.array(at["values"]) - want[at["at"]]).max() < 1e-6, f"depth {k}, position {at['at']}"
        assert got["mtp"][k - 1], f"depth {k} was never compared"


@pytest.mark.parametrize("name", ["V3", "YaRN", "three MTP modules", "greedy softmax router"])
def test_two_hundred_greedy_tokens_are_those_of_numpy_in_any_pieces_and_with_any_guesses(name):
    config = CONFIGS[name].replace(max_position_embeddings=256, vocab_size=3)  # so small that some guesses stand by chance
    model, stored = packed(config, "fp8", seed=5)
    prompt = [token % 3 for token in TOKENS[:9]]
    want = pico.generate(np.array([prompt]), stored, config, 200)[0].tolist()
    settings = [
        ([prompt], 0),
        ([prompt[:1], prompt[1:4], prompt[4:]], 0),
        ([[token] for token in prompt], 0),
        ([prompt], 1),
        ([prompt], 2),
        ([prompt[:5], prompt[5:]], 4),
    ]
    requests = [
        dict(what="write", model=model, config=plain(config), pieces=pieces, settings={**GREEDY, "guesses": n, "most": 209})
        for pieces, n in settings
    ]
    for (_, guesses), got in zip(settings, in_node(*requests), strict=True):
        assert got["ids"] == want
        assert (got["passes"] < 200) == (guesses > 0)


def test_with_guesses_text_is_drawn_from_the_same_distribution():
    """The third token over many seeds: with guesses and without the frequencies agree within what chance allows."""
    config = TINY.replace(initializer_range=0.15)
    model, _ = packed(config, "float16", seed=2)
    counts = []
    for guesses in (0, 2):
        requests = [
            dict(what="write", model=model, config=plain(config), pieces=[TOKENS[:3]],
                 settings=dict(temperature=1, seed=seed, guesses=guesses, stop=None, most=7))
            for seed in range(1500)
        ]  # fmt: skip
        found = np.zeros((2, config.vocab_size))
        for got in in_node(*requests):
            found[0, got["ids"][4]] += 1
            found[1, got["ids"][5]] += 1
        counts.append(found)
    a, b = counts
    chi2 = ((a - b) ** 2 / np.maximum(a + b, 1)).sum(axis=1)
    assert (chi2 < 45).all(), chi2  # 18 degrees of freedom: beyond 45 once in 2,000


def test_a_drawn_text_depends_on_its_seed_alone():
    model, _ = packed(TINY, "float16")
    base = dict(what="write", model=model, config=plain(TINY))
    settings = dict(temperature=1, guesses=0, stop=None, most=30)
    one, again, in_pieces, other = in_node(
        {**base, "pieces": [TOKENS[:6]], "settings": {**settings, "seed": 1}},
        {**base, "pieces": [TOKENS[:6]], "settings": {**settings, "seed": 1}},
        {**base, "pieces": [TOKENS[:2], TOKENS[2:6]], "settings": {**settings, "seed": 1}},
        {**base, "pieces": [TOKENS[:6]], "settings": {**settings, "seed": 2}},
    )
    assert one["ids"] == again["ids"] == in_pieces["ids"] != other["ids"]


def test_every_e4m3_code_is_read_as_in_numpy():
    [got] = in_node(dict(what="e4m3"))
    want = E4M3.values
    assert [g is None for g in got] == np.isnan(want).tolist()
    assert [g for g in got if g is not None] == want[~np.isnan(want)].tolist()


TEXTS = [
    "The value of a list, isn't it?  Two  spaces\n\n\tand tabs ",
    "def add(a, b):\n    return a + b  # 12 + 345 = 357",
    "Grüße, 世界! 🙂 naïve – “quotes” … \u00a0x\u3000y",
    "",
    "   ",
    "a\r\nb\x00c",
]


def tokenizers():
    many = [*TEXTS, "the the then there these " * 30, "return value values valued " * 30]
    yield "bytes", byte_tokenizer()
    yield "characters", character_tokenizer(TEXTS)
    yield "bpe", train_bpe(many, 340)


@pytest.mark.parametrize("name, tokenizer", list(tokenizers()), ids=lambda value: value if isinstance(value, str) else "")
def test_text_becomes_the_same_tokens_as_in_python(name, tokenizer):
    from minids.lab.page.described import described

    [got] = in_node(dict(what="tokenize", described=described(tokenizer), texts=TEXTS))
    for text, found in zip(TEXTS, got, strict=True):
        assert found["ids"] == tokenizer.encode(text).tolist(), text
        assert found["back"] == tokenizer.decode(tokenizer.encode(text)), text


def test_frequencies_of_v3():
    from minids import ModelConfig
    from minids.ops.yarn import yarn_frequencies

    [got] = in_node(dict(what="frequencies", config=plain(ModelConfig.preset("deepseek-v3"))))
    assert np.allclose(got, yarn_frequencies(64, 10000.0, 40.0, 4096), rtol=1e-12)
