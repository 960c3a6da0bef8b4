"""Fill-in-the-middle: every text can be put together again, the rate is that of documents, and runs resume with it."""

import numpy as np
import pytest
import small_run
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import lines, quiet, stop_after, write_text

from minids.checkpoint.tokenizer import EOS, FIM, Tokenizer, byte_tokenizer, character_tokenizer, train_bpe
from minids.config import TrainConfig
from minids.errors import MinidsError
from minids.training.batches import TokenStream
from minids.training.corpus import Corpus, Document
from minids.training.fill_in_the_middle import FillInTheMiddle, ends
from minids.training.run import Run
from minids.training.text import layout_for, tokenizer_for

TEXT = "the cat sat on the mat, and the other cat sat there too. 12 + 12 = 24\n\n" * 40
TOKENIZERS = {
    "bytes": byte_tokenizer,
    "bpe": lambda: train_bpe([TEXT], 320),
    "chars": lambda: character_tokenizer([TEXT]),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizers(request):
    plain = TOKENIZERS[request.param]()
    return plain, plain.with_fim()


def test_three_tokens_come_behind_all_others_and_nothing_else_moves(tokenizers, tmp_path):
    plain, fim = tokenizers
    assert plain.fim is None
    assert fim.fim == tuple(range(fim.vocab_size - 3, fim.vocab_size))
    assert fim.vocab_size == plain.vocab_size + 3 + (plain.eos_id is None), "an end token where there was none"
    assert fim.eos_token == (plain.eos_token or EOS) and fim.bos_id == plain.bos_id
    assert fim.encode(TEXT).tolist() == plain.encode(TEXT).tolist()
    assert fim.decode(fim.fim) == "" and fim.encode(FIM[0]).max() < fim.fim.begin, "a name inside a text is text"
    fim.save(tmp_path)
    assert Tokenizer.load(tmp_path).fim == fim.fim


def test_the_published_names_are_known():
    backend = byte_tokenizer().backend
    backend.add_special_tokens(["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"])
    assert Tokenizer(backend).fim == (259, 258, 260), "by name, in whatever order they are numbered"


def parts(ids, fim):
    """begin prefix hole suffix end middle → the three parts."""
    ids = ids.tolist()
    assert ids[0] == fim.begin and [ids.count(token) for token in fim] == [1, 1, 1]
    hole, end = ids.index(fim.hole), ids.index(fim.end)
    return ids[1:hole], ids[hole + 1 : end], ids[end + 1 :]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), st.integers(0, 2**31))
def test_a_rearranged_text_has_all_of_its_parts(text, seed):
    tokenizer = byte_tokenizer().with_fim()
    layout = FillInTheMiddle(tokenizer.encode, tokenizer.fim, 1.0, 128, np.random.default_rng(seed))
    prefix, suffix, middle = parts(layout.rearranged(text.encode()), tokenizer.fim)
    assert bytes(prefix + middle + suffix) == text.encode()
    for part in (prefix, middle, suffix):
        bytes(part).decode()  # no character is cut


def test_stretches_are_the_text_again_and_the_rate_is_their_share(tokenizers):
    _, tokenizer = tokenizers
    layout = FillInTheMiddle(tokenizer.encode, tokenizer.fim, 0.3, 64, np.random.default_rng(0))
    text, laid_out, count, pieces = TEXT.encode(), 0, 0, []
    for _ in range(10):
        found = layout(text)
        for ids in found:
            if tokenizer.fim.begin in ids:
                prefix, suffix, middle = parts(ids, tokenizer.fim)
                pieces.append(tokenizer.decode_bytes(prefix + middle + suffix))
                assert len(tokenizer.encode(pieces[-1])) <= 40, "about half a context at most"
                laid_out += 1
            else:
                pieces.append(tokenizer.decode_bytes(ids))
        per_token = len(text) / len(tokenizer.encode(text))
        count += len(ends(text, int(32 * per_token)))
    assert b"".join(pieces) == text * 10
    assert 0.2 < laid_out / count < 0.4


def test_a_character_longer_than_a_stretch_stays_whole():
    assert ends("🙂".encode() * 3, 1) == [4, 8, 12]
    assert ends(b"", 5) == [] and ends(b"ab", 5) == [2]


def test_documents_keep_their_domains_when_they_are_parted():
    tokenizer = byte_tokenizer().with_fim()
    layout = layout_for(TrainConfig(fim_rate=1.0, context_length=16), tokenizer)
    stream = TokenStream.encode([Document("a", "1", b"x" * 20), Document("b", "2", b"y" * 8)], tokenizer, layout)
    assert stream.domain_of.tolist() == [0, 0, 0, 1] and len(stream.starts) == 5
    for start in stream.starts[:-1]:
        assert stream.tokens[start : start + 2].tolist() == [tokenizer.bos_id, tokenizer.fim.begin]


def test_without_a_rate_nothing_changes():
    assert layout_for(TrainConfig(), byte_tokenizer()) is None
    with pytest.raises(MinidsError, match=r"fim_rate = 0\.1: the tokenizer has no tokens <\|fim_begin\|>"):
        layout_for(TrainConfig(fim_rate=0.1), byte_tokenizer())
    with pytest.raises(MinidsError, match=r"fim_rate = 1\.5: must lie between 0 and 1"):
        TrainConfig(fim_rate=1.5)


def test_the_vocabulary_is_of_the_size_that_was_asked_for():
    words = " ".join(f"{a}{b}ing" for a in "abcdefgh" for b in "pqrstuvw").encode() * 9
    corpus = Corpus("words", (Document("words", "1", words),))
    assert tokenizer_for(corpus, "bpe", 300, fim=True).vocab_size == tokenizer_for(corpus, "bpe", 300).vocab_size == 300


def test_a_resumed_run_has_the_same_layout(tmp_path):
    text, run = write_text(tmp_path), small_run.RUN.replace(steps=6, eval_every=6, save_every=6, fim_rate=0.5)
    Run.start(tmp_path / "whole", small_run.MODEL, run, text, "tiny", quiet).run()
    training = Run.start(tmp_path / "parts", small_run.MODEL, run, text, "tiny", quiet)
    assert training.model.config.vocab_size == 261 and training.tokenizer.fim.begin in training.text.training.tokens
    assert not any(training.tokenizer.fim.begin in stream.tokens for stream in training.text.held_out.values())
    stop_after(training, 3)
    training.run()
    Run.resume(tmp_path / "parts", say=quiet).run()
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
