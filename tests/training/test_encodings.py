"""Texts in the encodings that editors and systems write, and notebooks."""

import hashlib
import json

import pytest

from minids.training import text_files
from minids.training.text_files import read

TEXT = "naïve café 日本語 👩\u200d💻\n\ntwo\n"


@pytest.mark.parametrize(
    ("mark", "coding"),
    [(b"", "utf-8"), (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"),
     (b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be")],
)  # fmt: skip
def test_a_byte_order_mark_says_what_a_text_is_and_is_no_part_of_it(tmp_path, mark, coding):
    path = tmp_path / "text.txt"
    path.write_bytes(mark + TEXT.encode(coding))
    text, digest, problem = read(path)
    assert (bytes(text).decode(), problem) == (TEXT, "")
    assert digest == hashlib.sha256(TEXT.encode()).digest()  # the same text is the same, however it is written


@pytest.mark.parametrize(
    ("content", "why"),
    [(TEXT.encode("utf-16-le"), "UTF-16 without"), ("plain words".encode("utf-16-le"), "UTF-16 without"),
     ("plain words".encode("utf-16-be"), "UTF-16 without"), (b"\xff\xfea", "mark of UTF-16"), (b"\xef\xbb\xbf", "empty"),
     (b"\xff\xfe\x00\xd8", "mark of UTF-16"), (b"ab\0cd", "binary")],
)  # fmt: skip
def test_what_is_no_text_is_named(tmp_path, content, why):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    assert why in read(path)[2]


def test_a_large_text_is_read_behind_its_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "LARGE", 10)
    path = tmp_path / "large.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert bytes(read(path)[0]).decode() == TEXT
    path.write_bytes(TEXT.encode("utf-16"))
    assert "too large to convert" in read(path)[2]


def test_a_notebook_gives_what_was_written_and_not_what_was_printed(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": "x = 1\n", "outputs": [{"data": {"image/png": "iVBORw0KGgo"}, "text": "printed"}]},
        {"cell_type": "code", "source": []},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {"kernel": "k"}}))
    assert bytes(read(path)[0]).decode() == "# Title\nwords\n\nx = 1\n"
    for broken in ("[]", "{", '{"cells": 3}', '{"cells": [{}]}', '{"cells": [{"source": 3}]}'):
        path.write_text(broken)
        assert "no notebook" in read(path)[2]
