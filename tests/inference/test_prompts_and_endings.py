"""What a text begins with, and where it ends: characters that no token stands for, texts that end it, repeated tokens."""

import warnings

import numpy as np
import pytest
from support import TINY, build

from minids.checkpoint.tokenizer import byte_tokenizer, character_tokenizer, train_bpe
from minids.errors import MinidsError
from minids.inference.generate import generate, generate_batch, prompt_ids, stream
from minids.inference.sampling import Sampling


def with_tokenizer(tokenizer, **changes):
    model = build(TINY.replace(vocab_size=max(tokenizer.vocab_size, 2), **changes))
    model.tokenizer = tokenizer
    return model


CHARACTERS = with_tokenizer(character_tokenizer(["abcdefgh ,\n", "日本語"]))
BYTES = with_tokenizer(byte_tokenizer())


@pytest.mark.parametrize(
    ("text", "read", "left_out"),
    [("abXba", "abba", "'X'"), ("日本人", "日本", "'人'"), ("a\tb", "ab", r"'\\t'"), ("éa😀é", "a", "'é', '😀'")],
)
def test_what_the_vocabulary_does_not_have_is_said(text, read, left_out):
    with pytest.warns(UserWarning, match=f"^prompt: left out, because .*: {left_out}$"):
        ids = prompt_ids(CHARACTERS, text)
    assert CHARACTERS.tokenizer.decode(ids) == read
    with pytest.warns(UserWarning, match=left_out):
        generate_batch(CHARACTERS, ["ab", text], 1)


@pytest.mark.parametrize("begins", [None, 3])
@pytest.mark.parametrize("text", ["XYZ", "é", "\r"])
def test_a_text_of_nothing_else_is_refused(text, begins):
    model = with_tokenizer(CHARACTERS.tokenizer, bos_token_id=begins)
    with pytest.raises(MinidsError, match=r"^prompt = .*none of its characters is in the model's vocabulary"):
        generate(model, text, 1)


@pytest.mark.parametrize("tokenizer", [byte_tokenizer(), train_bpe(["the quick brown fox " * 9], 290)], ids=["bytes", "bpe"])
@pytest.mark.parametrize("text", ["abc", "日本語 😀", " é\t\r\n ", "<|end_of_text|>", "\x00\x1b"])
def test_nothing_is_said_where_all_is_read(tokenizer, text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer.decode(prompt_ids(with_tokenizer(tokenizer), text)) == text


def test_half_a_character_is_said():
    with pytest.warns(UserWarning, match=r"'\\ud83d'"):
        prompt_ids(BYTES, "a\ud83d")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ending", ["b", "ca", "日", "h,", "語a"])
def test_a_text_ends_with_the_token_that_completes_an_ending(ending, seed):
    whole = generate(CHARACTERS, "a", 300, temperature=1.5, seed=seed)
    text = CHARACTERS.tokenizer.decode(whole)
    ended = generate(CHARACTERS, "a", 300, temperature=1.5, seed=seed, stop=[ending])
    cut = text.find(ending)
    assert CHARACTERS.tokenizer.decode(ended) == (text if cut < 0 else text[: cut + len(ending)])
    assert np.array_equal(ended, generate(CHARACTERS, "a", 300, temperature=1.5, seed=seed, stop=ending))


def test_endings_of_bytes_tokens_and_several_at_once():
    whole = generate(BYTES, "x", 200, temperature=1.0)
    plain = [i for i in range(3, 200) if all(32 < token < 127 for token in whole[i - 2 : i])]
    for end in plain[:5]:  # two bytes that came one after the other
        ending = bytes(whole[end - 2 : end].tolist())
        length = next(n for n in range(1, 201) if ending in BYTES.tokenizer.decode_bytes(whole[:n]))
        assert len(generate(BYTES, "x", 200, temperature=1.0, stop=[ending.decode()])) == length <= end
    assert plain
    first = int(whole[20])
    stops = generate(BYTES, "x", 200, temperature=1.0, stop=["\x00\x01\x02", first])
    assert len(stops) == whole.tolist().index(first) + 1


def test_the_prompt_is_no_ending_and_a_batch_ends_each_by_itself():
    alone = [generate(CHARACTERS, p, 40, temperature=1.5, seed=i, stop="ab") for i, p in enumerate(["ab", "cd", "a"])]
    together = generate_batch(CHARACTERS, ["ab", "cd", "a"], 40, temperature=1.5, stop="ab")
    assert [new.tolist() for new in together] == [new.tolist() for new in alone]
    assert len(generate(CHARACTERS, "ab", 5, stop="ab")) >= 1


@pytest.mark.parametrize(
    ("stop", "words"),
    [("", "must be a list"), ([1.5], "must be a list"), ([True], "must be a list"), (["a", ""], "must be a list"), (3, "list")],
)
def test_nonsense_endings_are_refused(stop, words):
    with pytest.raises(MinidsError, match=f"^stop = .*{words}"):
        generate(CHARACTERS, "a", 1, stop=stop)
    with pytest.raises(MinidsError, match="no tokenizer to know texts by"):
        generate(build(TINY), [1], 1, stop=["a"])


@pytest.mark.parametrize("penalty", [1.3, 0.7])
def test_repeated_tokens_are_penalised_as_defined(penalty):
    logits = np.array([2.0, -1.0, 0.5, 0.0, -3.0])
    want = [2.0 / penalty, -1.0 * penalty, 0.5, 0.0, -3.0]
    sampling = Sampling(repetition_penalty=penalty)
    np.testing.assert_allclose(sampling.penalised(logits, [0, 1, 1, 3]), want)
    assert logits[0] == 2.0, "the model's own logits stay"
    assert Sampling().penalised(logits, [0, 1]) is logits


@pytest.mark.parametrize("options", [{}, {"speculative": True}, {"speculative": True, "draft_tokens": 4}, {"cache": "none"}])
def test_greedy_text_with_a_penalty_is_that_of_a_plain_loop(options):
    model, text = build(TINY), [3, 1, 4]
    for _ in range(40):
        row = model.logits([text])[0, -1].copy()
        seen = sorted(set(text))
        row[seen] = np.where(row[seen] < 0, row[seen] * 1.4, row[seen] / 1.4)
        text.append(int(row.argmax()))
    got = [token.id for token in stream(model, [3, 1, 4], 40, repetition_penalty=1.4, **options)]
    assert got == text[3:] != generate(model, [3, 1, 4], 40).tolist()
