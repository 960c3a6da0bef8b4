"""What we save, transformers opens, with the same ids and the same text."""

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from minids.checkpoint.tokenizer import BOS, EOS, byte_tokenizer, train_bpe

pytestmark = pytest.mark.parity

TEXTS = [
    "plain words, then  two spaces   and three",
    "lines\n\nand\ttabs \r\n   indented\n",
    "don't . stop ,  here ! 's 're",
    "naïve café — 漢字かな 한국어 🙂👍🏽 a\u0301 \u00a0\u2003",
    "def f(x):\n    return x ** 2  # 1234567 + 89\n",
    " leading and trailing ",
    "",
]


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def saved(request, tmp_path_factory):
    tokenizer = byte_tokenizer() if request.param == "bytes" else train_bpe(TEXTS * 20, 380)
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer.save(folder)
    return tokenizer, str(folder)


@pytest.mark.parametrize("opener", [AutoTokenizer, PreTrainedTokenizerFast])
def test_transformers_gives_the_same_ids_and_text(saved, opener):
    ours, folder = saved
    theirs = opener.from_pretrained(folder)
    assert len(theirs) == ours.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos_id, ours.eos_id)
    assert (theirs.bos_token, theirs.eos_token) == (BOS, EOS)
    for text in TEXTS:
        ids = ours.encode(text).tolist()
        assert theirs(text)["input_ids"] == ids, f"other ids for {text!r}"
        assert theirs.decode(ids) == ours.decode(ids) == text
        assert theirs.decode([ours.bos_id, *ids, ours.eos_id], skip_special_tokens=True) == text
    broken = [0xC3, ord("a"), 0xFF]
    assert theirs.decode(broken) == ours.decode(broken)
