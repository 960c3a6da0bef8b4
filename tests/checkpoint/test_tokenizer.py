"""The tokenizers: ids, bytes, round trips, and the files that others open."""

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from minids.checkpoint.tokenizer import BOS, EOS, Tokenizer, byte_tokenizer, character_tokenizer, train_bpe
from minids.errors import MinidsError

TRICKY = "Hé  llo,\n\n\tworld\r\n  don't . 1234567 漢字 🙂 a\u0301   \x00\x7f   "
TEXTS = ["the cat sat on the mat, and the other cat sat there too. 12 + 12 = 24\n" * 30, TRICKY]


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def tokenizer(request):
    return byte_tokenizer() if request.param == "bytes" else train_bpe(TEXTS, 400)


def test_a_byte_is_its_own_id():
    tokenizer = byte_tokenizer()
    assert tokenizer.vocab_size == 258 and (tokenizer.bos_id, tokenizer.eos_id) == (256, 257)
    everything = bytes(range(256))
    assert tokenizer.encode(everything).tolist() == list(range(256))
    assert tokenizer.decode_bytes(range(256)) == everything
    assert tokenizer.encode("é").tolist() == [0xC3, 0xA9] and tokenizer.encode("é").dtype == np.int32


def test_the_library_alone_gives_the_same_ids_from_the_saved_file(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    alone = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert alone.encode(TRICKY).ids == tokenizer.encode(TRICKY).tolist()
    assert alone.decode(tokenizer.encode(TRICKY).tolist()) == TRICKY
    assert (alone.token_to_id(BOS), alone.token_to_id(EOS)) == (256, 257)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_text_comes_back(tokenizer, text):
    for given_as in (text, text.encode("utf-8")):
        ids = tokenizer.encode(given_as)
        assert ids.dtype == np.int32 and tokenizer.decode(ids) == text
    assert tokenizer.count_bytes(ids) == len(text.encode("utf-8"))
    assert b"".join(tokenizer.decode_bytes([i]) for i in ids.tolist()) == text.encode("utf-8")


def test_the_names_of_special_tokens_inside_a_text_are_text(tokenizer, tmp_path):
    text = f"a{EOS}b{BOS}"
    tokenizer.save(tmp_path)
    for each in (tokenizer, Tokenizer.load(tmp_path)):
        ids = each.encode(text)
        assert not set(ids.tolist()) & {each.bos_id, each.eos_id}, "a text could end its own document"
        assert each.decode(ids) == text


def test_special_tokens_padding_and_empty_rows_of_the_embedding_are_no_text(tokenizer):
    ids = [tokenizer.bos_id, *b"ab", tokenizer.eos_id, -100, tokenizer.vocab_size + 5]
    assert tokenizer.decode(ids) == "ab" and tokenizer.decode(np.array([ids])) == "ab"
    assert tokenizer.decode_bytes([tokenizer.eos_id]) == b""
    assert tokenizer.count_bytes(np.array([ids, ids])) == 4
    assert tokenizer.byte_counts[[0, 255, 256, 257]].tolist() == [1, 1, 0, 0]


def test_bytes_that_are_no_text_decode_to_the_replacement_character(tokenizer):
    assert tokenizer.decode([0xC3, ord("a")]) == "\ufffda"
    assert tokenizer.decode_bytes([0xC3, ord("a")]) == b"\xc3a"
    assert tokenizer.decode(tokenizer.encode(b"\xc3a")) == "\ufffda"
    assert tokenizer.decode(tokenizer.encode("half \ud800")) == "half ?"


def test_bpe_numbers_bytes_first_then_specials_then_merges():
    bpe = train_bpe(TEXTS, 400)
    assert bpe.vocab_size == 258 + len(json.loads(bpe.backend.to_str())["model"]["merges"]) <= 400
    assert [bpe.decode_bytes([i]) for i in range(256)] == [bytes([i]) for i in range(256)]
    assert (bpe.bos_id, bpe.eos_id) == (256, 257)
    assert all(len(bpe.decode_bytes([i])) > 1 for i in range(258, bpe.vocab_size))
    assert len(bpe.encode(TEXTS[0])) < len(TEXTS[0]) / 2, "the merges save nothing"
    assert bpe.encode("the").tolist() == [next(i for i in range(bpe.vocab_size) if bpe.decode_bytes([i]) == b"the")]


def test_bpe_reaches_the_size_asked_for_and_not_more():
    text = " ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600))
    assert train_bpe([text], 300).vocab_size == 300
    assert train_bpe([], 300).vocab_size == 258, "nothing to merge"
    with pytest.raises(MinidsError, match="bpe_vocab_size = 257"):
        train_bpe([text], 257)


def test_bpe_is_the_same_every_time_and_for_bytes_and_text():
    first = train_bpe(TEXTS, 350).backend.to_str()
    assert train_bpe((text.encode() for text in TEXTS), 350).backend.to_str() == first


def test_digits_are_never_merged():
    bpe = train_bpe(["2024 2024 2024 2024\n" * 50], 300)
    assert [bpe.decode([i]) for i in bpe.encode("a2024")] == ["a", "2", "0", "2", "4"]


def test_a_saved_tokenizer_comes_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "folder")
    again = Tokenizer.load(tmp_path / "new" / "folder")
    assert again.encode(TRICKY).tolist() == tokenizer.encode(TRICKY).tolist()
    assert (again.vocab_size, again.bos_id, again.eos_id) == (tokenizer.vocab_size, 256, 257)
    config = json.loads((tmp_path / "new" / "folder" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and config["clean_up_tokenization_spaces"] is False
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    byte_tokenizer().save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("minids.files.os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        train_bpe(TEXTS, 300).save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before


def published(folder, **config):
    """A folder like those on the hub: specials first, bytes in another order, truncation on, a begin token
    put before every text, a token that is no special."""
    characters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<｜begin▁of▁sentence｜>": 0, "<｜end▁of▁sentence｜>": 1, **{c: i + 2 for i, c in enumerate(characters)}}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"])
    backend.add_tokens(["<think>"])
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<｜begin▁of▁sentence｜> $A", special_tokens=[("<｜begin▁of▁sentence｜>", 0)]
    )
    backend.enable_truncation(4)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("style", [lambda name: name, lambda name: {"__type": "AddedToken", "content": name}])
def test_a_published_tokenizer_opens(tmp_path, style):
    published(tmp_path, bos_token=style("<｜begin▁of▁sentence｜>"), eos_token=style("<｜end▁of▁sentence｜>"), pad_token=None)
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (0, 1, 259)
    assert tokenizer.decode(tokenizer.encode(TRICKY)) == TRICKY, "the file's truncation was applied"
    assert tokenizer.decode_bytes([258]) == b"<think>" and tokenizer.decode([0, 258, 1]) == "<think>"
    assert len(tokenizer.encode("ab")) == 2, "a begin token was added"


def test_begin_and_end_may_be_absent(tmp_path):
    published(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.bos_id is None and tokenizer.eos_id is None
    byte_tokenizer().save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    assert Tokenizer.load(tmp_path).eos_id == 257


def test_what_cannot_be_opened_is_said_in_one_line(tmp_path):
    def refused(words):
        with pytest.raises(MinidsError, match=words) as error:
            Tokenizer.load(tmp_path)
        assert "\n" not in str(error.value)

    refused("has no tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{")
    refused("cannot be read")
    published(tmp_path, bos_token="<missing>")
    refused("bos_token = '<missing>'")
    published(tmp_path, bos_token=[1])
    refused("is not the name of a token")
    (tmp_path / "tokenizer_config.json").write_text("[]")
    refused("cannot be read")
    words = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"▁the": 0}, merges=[]))
    words.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    refused("only byte-level tokenizers")


def test_a_character_tokenizer_holds_the_texts_characters_and_nothing_else(tmp_path):
    tokenizer = character_tokenizer(["to be,\n", "or nôt 漢\r\n".encode()])
    alphabet = sorted(set("to be,\nor nôt 漢\r\n"))
    assert tokenizer.vocab_size == len(alphabet) and tokenizer.beginning == [] and tokenizer.eos_id is None
    assert [tokenizer.decode([i]) for i in range(len(alphabet))] == alphabet
    text = "bet\r\n漢ô, net"
    ids = tokenizer.encode(text)
    assert ids.tolist() == [alphabet.index(c) for c in text] and tokenizer.decode(ids) == text
    assert tokenizer.count_bytes(ids) == len(text.encode())
    assert tokenizer.decode(tokenizer.encode("boZ語ré")) == "bor", "characters without a token are left out whole"
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert character_tokenizer(["to be"]).encode("bé toZ").tolist() == [1, 0, 4, 3], "an alphabet of ASCII, read from a table"
    assert again.encode(text).tolist() == ids.tolist() and (again.bos_id, again.eos_id) == (None, None)
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == ids.tolist()


STREAMED = ["naïve café\n日本語 👩\u200d💻 x", "plain", "", "é" * 50, "\ufeffmark"]


@pytest.mark.parametrize("kind", ["bytes", "bpe", "chars"])
@pytest.mark.parametrize("text", STREAMED)
def test_a_stream_of_ids_is_decoded_as_all_of_them_at_once(kind, text):
    made = {
        "bytes": byte_tokenizer,
        "bpe": lambda: train_bpe(STREAMED * 20, 300),
        "chars": lambda: character_tokenizer(STREAMED),
    }
    tokenizer = made[kind]()
    ids = tokenizer.encode(text).tolist()
    pieces = list(tokenizer.decode_stream(ids))
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert len(pieces) == len(ids) + 1
    assert not any("\ufffd" in piece for piece in pieces)  # no half of a character is shown before the other


@pytest.mark.parametrize("data", [b"\xc3", b"a\xffb", b"\xe6\x97", b"\xf0\x9f\x91a", b"\xc3\xc3\xa9", bytes(range(256))])
def test_bytes_that_never_become_a_character_are_marked_once_they_cannot(data):
    tokenizer = byte_tokenizer()
    assert "".join(tokenizer.decode_stream(list(data))) == tokenizer.decode(list(data))


def test_decoding_a_stream_reads_each_id_once(monkeypatch):
    """No time is measured: what grows with the square of a text's length is counted."""
    tokenizer, read = byte_tokenizer(), []
    whole = type(tokenizer).decode_bytes
    monkeypatch.setattr(type(tokenizer), "decode_bytes", lambda self, ids: read.extend(ids) or whole(self, ids))
    assert len("".join(tokenizer.decode_stream(iter([65] * 3000)))) == 3000
    assert len(read) == 3000
