"""A file too large for memory is the same corpus as one that is held: read piece by piece, cut at the same kind of places."""

import subprocess
import sys

import numpy as np
import pytest

from minids.checkpoint.tokenizer import byte_tokenizer
from minids.commands.data import describe
from minids.errors import MinidsError
from minids.training import batches, text_files
from minids.training.batches import TokenStream
from minids.training.corpus import load_corpus

TEXT = ("größe und 語\n\n" + "one, two, three\n" * 40 + "x" * 900) * 300


@pytest.fixture
def piecewise(monkeypatch):
    """Every file and every corpus counts as large."""
    monkeypatch.setattr(text_files, "LARGE", 1)
    monkeypatch.setattr(batches, "LARGE", 1)


def read(path):
    found = load_corpus([str(path)])
    sides = found.split(0.1)
    streams = [TokenStream.encode(side.documents, byte_tokenizer()) for side in sides]
    return found, [np.asarray(stream.tokens) for stream in streams]


def test_it_is_the_corpus_that_reading_whole_gives(tmp_path, monkeypatch):
    path = tmp_path / "book.txt"
    path.write_text(TEXT)
    whole, tokens = read(path)
    monkeypatch.setattr(text_files, "LARGE", 1)
    monkeypatch.setattr(batches, "LARGE", 1)
    pieces, others = read(path)
    assert all(isinstance(d.content, text_files.Stretch) for d in pieces.documents) and len(pieces.documents) > 3
    assert [d.text for d in pieces.documents] == [d.text for d in whole.documents]
    assert pieces.sha256 == whole.sha256 and describe(pieces) == describe(whole)
    for ours, theirs in zip(others, tokens, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_one_long_line_is_cut_between_characters(tmp_path, piecewise):
    path = tmp_path / "line.txt"
    path.write_text("語" * 100_000)
    found, _ = read(path)
    assert "".join(d.text.decode() for d in found.documents) == "語" * 100_000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b" \n" * 800_000, "is empty"),
        (b"text" * 400_000 + b"\0", "binary"),
        (b"text" * 400_000 + b"\xff.", "not UTF-8 text .byte 1600000"),
        (b"text" * 400_000 + b"\xe8\xaa", "not UTF-8 text .byte 1600000"),
        (b"x" + "\u8a9e".encode() * 400_000 + b"\xff", "not UTF-8 text .byte 1200001"),
    ],
)
def test_what_is_no_text_is_refused_wherever_it_shows(tmp_path, piecewise, data, words):
    path = tmp_path / "file.txt"
    path.write_bytes(data)
    with pytest.raises(MinidsError, match=words):
        load_corpus([str(path)])


@pytest.mark.slow
def test_a_gigabyte_is_never_held(tmp_path):
    path = tmp_path / "big.txt"
    block = ("all work and no play makes a dull text\n\n" * 26_000).encode()
    with open(path, "wb") as file:
        for _ in range((1 << 30) // len(block) + 1):
            file.write(block)
    code = (
        "import resource, sys; from minids.training.corpus import load_corpus; from minids.training.batches import *;"
        "from minids.checkpoint.tokenizer import byte_tokenizer; import numpy as np;"
        f"corpus = load_corpus([{str(path)!r}]); assert sum(d.size for d in corpus.documents) > 1 << 30;"
        "train, held = corpus.split(0.1); stream = TokenStream.encode(train.documents, byte_tokenizer());"
        "batch = Batches(stream, 4, 64, np.random.default_rng(0)).next()[0]; assert batch.shape == (4, 64);"
        "anonymous = [l for l in open('/proc/self/status') if l.startswith(('RssAnon', 'VmHWM'))];"
        "print(max(int(l.split()[1]) for l in anonymous if l.startswith('RssAnon')) >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-1000:]
    assert int(done.stdout) < 400, f"{done.stdout.strip()} MB of memory for a corpus of 1 GB"
