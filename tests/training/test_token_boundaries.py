"""Joined tokens: what is split is the same text, at the rate that was asked for, and without the option nothing changes."""

import numpy as np
import pytest
import small_run
from small_run import lines, quiet, stop_after, write_text

from minids.checkpoint.tokenizer import Tokenizer, byte_tokenizer, train_bpe
from minids.config import TrainConfig
from minids.errors import MinidsError
from minids.training.run import Run
from minids.training.text import layout_for
from minids.training.token_boundaries import SplitJoined, joined

TEXT = "def cat(mat):\n    return mat.sat(),\n\n# the cat sat;\r\nx = [1, 2]\n" * 40


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe([TEXT], 330, line_tokens=True)


def test_only_with_line_tokens_do_punctuation_and_line_break_join(tokenizer, tmp_path):
    assert not joined(train_bpe([TEXT], 330)) and not joined(byte_tokenizer())
    pieces = {tokenizer.decode([number]) for number in joined(tokenizer)}
    assert {":\n", "):\n"} & pieces and all(piece[0] not in "\r\n" and piece.strip() != piece for piece in pieces)
    for text in (TEXT, "no end", "\n\n", "a:\n\n  b. \r\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode(TEXT).tolist() == tokenizer.encode(TEXT).tolist()


def test_both_parts_are_the_token(tokenizer):
    for number, parts in joined(tokenizer).items():
        assert tokenizer.decode(parts) == tokenizer.decode([number]) and number not in parts and len(parts) >= 2


def test_a_share_is_split_and_the_text_is_the_same(tokenizer):
    whole = tokenizer.encode(TEXT)
    count = np.isin(whole, list(joined(tokenizer))).sum()
    for rate in (0.0, 0.3, 1.0):
        ids = SplitJoined(tokenizer, rate, np.random.default_rng(0))(TEXT.encode())
        assert tokenizer.decode(ids) == TEXT
        left = np.isin(ids, list(joined(tokenizer))).sum() / count
        assert abs(left - (1 - rate)) < 0.1 if 0 < rate < 1 else left == 1 - rate


def test_layouts_are_made_of_both_options(tokenizer):
    run = TrainConfig(tokenizer="bpe", bpe_line_tokens=True, line_token_split_rate=1.0)
    (ids,) = layout_for(run, tokenizer)(TEXT.encode())
    assert not np.isin(ids, list(joined(tokenizer))).any()
    filling = tokenizer.with_fim()
    both = layout_for(run.replace(fim_rate=1.0, context_length=32), filling)(TEXT.encode())
    assert len(both) > 10 and not np.isin(np.concatenate(both), list(joined(tokenizer))).any()


def test_a_run_with_split_tokens_resumes_to_the_bit(tmp_path):
    text = write_text(tmp_path)
    run = small_run.RUN.replace(steps=6, eval_every=6, save_every=6, tokenizer="bpe", bpe_vocab_size=300)
    run = run.replace(bpe_line_tokens=True, line_token_split_rate=0.5)
    Run.start(tmp_path / "whole", small_run.MODEL, run, text, "tiny", quiet).run()
    training = Run.start(tmp_path / "parts", small_run.MODEL, run, text, "tiny", quiet)
    assert joined(training.tokenizer), "the rhyme's lines end in a mark"
    stop_after(training, 3)
    training.run()
    Run.resume(tmp_path / "parts", say=quiet).run()
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(bpe_line_tokens=True), "bpe_line_tokens = True: tokenizer = 'bytes' joins nothing; say 'bpe'"),
        (dict(line_token_split_rate=0.1), "line_token_split_rate = 0.1: none joins; say bpe_line_tokens too"),
        (dict(tokenizer="bpe", bpe_line_tokens=True, line_token_split_rate=1.1), "must lie between 0 and 1"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, words):
    with pytest.raises(MinidsError) as refused:
        TrainConfig(**changes)
    assert words in str(refused.value)
