"""What is printed cannot upset a terminal, what is no control character stays, and widths are those of the terminal."""

import ast
from pathlib import Path

import pytest

from minids import terminal
from minids.errors import MinidsError, refuse
from minids.terminal import cells, clean, cut, fit, name_of, padded, quoted, say
from minids.words import table

ROOT = Path(terminal.__file__).parent
HARMLESS = [
    "plain words", "tab\tbed", "two\nlines", "no\u00a0break", "wide\u3000space", "thin\u2009space",
    "👩\u200d💻", "نمی\u200cدانم",
    "a\u0301ccent", "soft\u00adhyphen", "left\u200emark", "日本語", "line\u2028end",
]  # fmt: skip


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_control_character_stays_as_it_is(text):
    assert clean(text) == text
    if not {"\n", "\t"} & set(text):
        assert name_of(text) == text
        assert quoted(text) == f"'{text}'"


@pytest.mark.parametrize(
    "code", [*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)
def test_every_control_character_and_override_gets_a_mark(code):
    assert clean(f"a{chr(code)}b") == name_of(f"a{chr(code)}b") == "a·b"
    assert chr(code) not in quoted(f"a{chr(code)}b")


def test_line_ends_of_windows_are_line_ends_and_a_name_has_none():
    assert clean("one\r\ntwo\rthree") == "one\ntwothree"
    assert name_of("one\r\ntwo\tthree") == "one··two·three"


def test_bytes_of_a_name_that_are_no_text_are_shown_as_such():
    assert name_of(b"caf\xe9/\xff".decode("utf-8", "surrogateescape")) == "caf\ufffd/\ufffd"
    assert clean("half \ud83d a pair") == "half \ufffd a pair"


@pytest.mark.parametrize("text", ["it's", 'a "word"', "back\\slash", "both ' and \"", "new\nline", "\x1b[2J", "plain"])
def test_quoted_is_repr_where_nothing_is_beyond_it(text):
    assert quoted(text) == repr(text)


def test_colours_pass_only_where_they_were_put_there(capsys):
    say("\x1b[31mred\x1b[0m \x1b[2J", painted=True)
    say("\x1b[31mred")
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m ·[2J\n·[31mred\n"


def test_an_error_quotes_without_control_characters():
    assert str(MinidsError("a\x1b]0;title\x07b\nc")) == "a·]0;title·b\\nc"
    assert str(refuse("prompt", "👩\u200d💻\x07", "no")) == "prompt = '👩\u200d💻\\x07': no"


def test_nothing_but_the_door_prints():
    """pico imports nothing of the package, and has a line of its own for it."""
    for path in ROOT.rglob("*.py"):
        tree = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = {node.id for node in tree if isinstance(node, ast.Name)}
        calls = {ast.unparse(node.func) for node in tree if isinstance(node, ast.Call)}
        if path.name not in ("terminal.py", "pico.py"):
            assert not {"print"} & names and not {"sys.stdout.write", "sys.stderr.write", "tqdm.write"} & calls, path


@pytest.mark.parametrize(
    ("text", "width"),
    [("abc", 3), ("日本", 4), ("e\u0301", 1), ("👩", 2), ("ﾊﾛｰ", 3), ("Ａ", 2), ("한글", 4), ("a\u200db", 2), ("", 0)],
)
def test_width_is_that_of_the_terminal(text, width):
    assert cells(text) == width
    assert padded(text, 7) == text + " " * (7 - width)
    assert padded(text, 7, right=True) == " " * (7 - width) + text


@pytest.mark.parametrize(
    ("width", "text"), [(10, "日本語で書く"), (7, "abcdefgh"), (1, "日"), (5, "e\u0301" * 9), (3, "ab日本")]
)
def test_what_is_cut_has_the_width_asked_for(width, text):
    shorter = cut(text, width)
    assert shorter.endswith("…") and text.startswith(shorter[:-1])
    assert width - 1 <= cells(shorter) <= width
    assert cut(text, cells(text)) == text


def test_a_table_of_wide_names_stays_aligned():
    lines = table([("日本語", "1", "x"), ("emoji 👩", "22", "y"), ("plain", "333", "z")], align="lrl").split("\n")
    assert {cells(line) for line in lines} == {cells("emoji 👩  333  z")}
    assert all(line[-1] == letter for line, letter in zip(lines, "xyz", strict=True))


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_table_gives_way_in_its_words_and_in_no_number(width):
    rows = [
        ("a name that goes on and on, 日本語", 123456789, "and a remark that is long as well, longer than all"),
        ("b", 1, "c"),
    ]
    shown = table(rows, align="lrl", width=width)
    assert max(map(cells, shown.split("\n"))) <= width
    assert "123456789" in shown and "…" in shown
    assert table(rows, align="lrl", width=200) == table(rows, align="lrl")


def test_only_a_terminal_cuts(monkeypatch):
    long = "x" * 500 + "\nshort"
    assert fit(long) == long
    monkeypatch.setattr(terminal, "columns", lambda: 60)
    assert [len(line) for line in fit(long).split("\n")] == [60, 5]


def test_sentences_are_broken_between_words_where_the_terminal_is_narrow(monkeypatch):
    monkeypatch.setattr(terminal, "columns", lambda: 12)
    assert terminal.wrapped("one two three four\nfive") == "one two\nthree four\nfive"
    monkeypatch.setattr(terminal, "columns", lambda: None)
    assert terminal.wrapped("one two three four\nfive") == "one two three four\nfive"
