"""The corpus: what is read, how it is divided, and what the built-in one holds."""

import re
import sysconfig

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minids.commands.data import describe
from minids.errors import MinidsError
from minids.training import builtin, corpus, download, text_files
from minids.training.corpus import Corpus, Document, load_corpus


def corpus_of(**domains: list[bytes]) -> Corpus:
    return Corpus("made", tuple(Document(d, f"{d}{i}", t) for d, texts in domains.items() for i, t in enumerate(texts)))


def texts(part: Corpus) -> list[bytes]:
    return [document.text for document in part.documents]


# Division into training and validation.


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=2, max_size=300), min_size=1, max_size=12, unique=True),
    st.floats(0.01, 0.9),
)
def test_split_keeps_every_byte_on_exactly_one_side_and_leaves_neither_side_empty(documents, share):
    whole = corpus_of(a=[text.encode() for text in documents])
    train, validation = whole.split(share)
    assert texts(train) and texts(validation), "one side got no text"
    assert all(texts(train)) and all(texts(validation)), "a side got an empty document"
    assert sum(map(len, texts(train))) + sum(map(len, texts(validation))) == sum(map(len, texts(whole)))
    for text in texts(train) + texts(validation):
        text.decode("utf-8")  # raises where a character was cut in two
    uncut = set(texts(whole))
    cut = [text for text in texts(train) + texts(validation) if text not in uncut]
    assert len(cut) in (0, 2), "at most one document is cut, into two"
    assert not cut or cut[0] + cut[1] in uncut, "the two pieces are not a document's beginning and end"


def test_split_takes_about_the_share_of_the_bytes():
    whole = corpus_of(a=[b"%d " % i * 500 for i in range(100)])
    size = sum(map(len, texts(whole.split(0.1)[1])))
    total = sum(map(len, texts(whole)))
    assert 0.08 * total <= size <= 0.1 * total, f"validation has {size} of {total} bytes"


def test_split_depends_on_the_texts_and_not_on_their_order_or_names():
    lines = [b"text %d\n" % i * (5 + i) for i in range(40)]
    one = corpus_of(a=lines).split(0.2)[1]
    other = corpus_of(b=lines[::-1]).split(0.2)[1]
    assert sorted(texts(one)) == sorted(texts(other)), "another order of the documents gave another validation set"


def test_split_serves_each_domain_on_its_own():
    train, validation = corpus_of(
        big=[b"x%d" % i * 1000 for i in range(50)], small=[b"first\n\nsecond\n\nthird\n\nlast"]
    ).split(0.1)
    assert train.domains == validation.domains == ("big", "small")


def test_a_single_document_is_divided_at_the_blank_line_before_the_share():
    paragraphs = [b"paragraph %d\nof two lines\n\n" % i for i in range(50)]
    text = b"".join(paragraphs)
    train, validation = corpus_of(a=[text]).split(0.1)
    assert texts(train)[0] + texts(validation)[0] == text
    assert texts(validation)[0].startswith(b"paragraph "), "the cut is not behind a blank line"
    assert len(text) * 0.1 <= len(texts(validation)[0]) <= len(text) * 0.1 + len(paragraphs[-1])


def test_a_small_validation_document_does_not_stand_for_a_large_domain():
    _, validation = corpus_of(a=[b"line of text\n" * 1000, b"tiny"]).split(0.1)
    assert sum(map(len, texts(validation))) >= 0.09 * 13_000, "4 bytes were all the validation text of 13,000"


def test_a_document_that_says_its_part_goes_there():
    documents = [Document("a", "v", b"v" * 90, "validation"), Document("a", "t", b"t", "train")]
    train, validation = Corpus("made", tuple(documents)).split(0.1)
    assert (texts(train), texts(validation)) == ([b"t"], [b"v" * 90])


def test_share_zero_keeps_nothing_and_other_shares_are_refused():
    train, validation = corpus_of(a=[b"one", b"two"]).split(0.0)
    assert texts(train) == [b"one", b"two"] and validation.documents == ()
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(MinidsError, match="validation_share"):
            corpus_of(a=[b"one"]).split(share)


def test_one_character_cannot_be_divided():
    with pytest.raises(MinidsError, match="one character"):
        corpus_of(a=["漢".encode()]).split(0.5)


@pytest.mark.parametrize(
    "changed",
    [
        [Document("b", "n", b"one"), Document("a", "m", b"two")],
        [Document("a", "N", b"one"), Document("a", "m", b"two")],
        [Document("a", "n", b"onE"), Document("a", "m", b"two")],
        [Document("a", "m", b"two"), Document("a", "n", b"one")],
        [Document("a", "no", b"ne"), Document("a", "m", b"two")],
        [Document("a", "n", b"one")],
    ],
)
def test_the_hash_sees_every_change(changed):
    documents = (Document("a", "n", b"one"), Document("a", "m", b"two"))
    assert Corpus("x", documents).sha256 == Corpus("y", documents).sha256
    assert Corpus("x", tuple(changed)).sha256 != Corpus("x", documents).sha256


# Files and folders.


@pytest.fixture
def folder(tmp_path):
    """A folder with texts at two depths, and files that are none."""
    (tmp_path / "notes.d" / "deep").mkdir(parents=True)
    (tmp_path / "notes.d" / "b.txt").write_text("second\n")
    (tmp_path / "notes.d" / "a.txt").write_text("first é\n", encoding="utf-8")
    (tmp_path / "notes.d" / "deep" / "c.md").write_text("third\n")
    (tmp_path / "notes.d" / ".hidden").write_text("hidden\n")
    (tmp_path / "notes.d" / ".git").mkdir()
    (tmp_path / "notes.d" / ".git" / "config").write_text("hidden too\n")
    (tmp_path / "notes.d" / "photo.raw").write_bytes(b"\0\1\2")
    (tmp_path / "notes.d" / "latin1.txt").write_bytes("é".encode("latin-1"))
    (tmp_path / "notes.d" / "empty").write_bytes(b" \n")
    return tmp_path / "notes.d"


def test_a_folder_is_one_domain_of_its_text_files(folder):
    found = load_corpus([str(folder)])
    assert found.domains == ("notes.d",)
    assert [(d.name, d.text) for d in found.documents] == [
        ("a.txt", "first é\n".encode()),
        ("b.txt", b"second\n"),
        ("deep/c.md", b"third\n"),
    ]
    assert {name: why.split(" (")[0] for name, why in found.skipped} == {
        "photo.raw": "is binary",
        "latin1.txt": "is not UTF-8 text",
        "empty": "is empty",
    }


def test_files_are_domains_of_their_own_with_names_of_their_own(folder, tmp_path):
    for place, text in (("x/story.txt", "one"), ("y/story.md", "two"), ("prose", "three")):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(text)
    found = load_corpus([str(tmp_path / "x/story.txt"), str(tmp_path / "y/story.md"), str(tmp_path / "prose")])
    assert found.domains == ("story", "story-2", "prose")


def test_the_corpus_does_not_depend_on_where_it_lies(folder, tmp_path, monkeypatch):
    absolute = load_corpus([str(folder)])
    monkeypatch.chdir(folder)
    assert load_corpus(["."]).sha256 == absolute.sha256


def test_links_in_a_circle_end(folder):
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    found = load_corpus([str(folder)])
    assert len(found.documents) == 3
    assert {name for name, _ in found.skipped} == {"photo.raw", "latin1.txt", "empty", "self"}, "a folder was entered twice"


def test_a_copy_is_read_once(folder):
    (folder / "copy.txt").write_text("second\n")
    found = load_corpus([str(folder)])
    assert [document.text for document in found.documents].count(b"second\n") == 1
    assert ("copy.txt", f"is the same text as {folder / 'b.txt'}") in found.skipped
    with pytest.raises(MinidsError, match="the same text as"):
        load_corpus([str(folder), str(folder / "b.txt")])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("photo.raw", "binary"),
        ("latin1.txt", "UTF-8"),
        ("empty", "empty"),
        ("missing", "no such file"),
    ],
)
def test_a_file_named_by_itself_must_be_text(folder, name, words):
    with pytest.raises(MinidsError, match=words) as error:
        load_corpus([str(folder / name)])
    assert name in str(error.value) and "\n" not in str(error.value)


def test_an_unreadable_file_is_passed_over_in_a_folder_and_refused_alone(folder, monkeypatch):
    read_bytes = corpus.Path.read_bytes

    def refusing(path):
        if path.name == "b.txt":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(corpus.Path, "read_bytes", refusing)
    assert ("b.txt", "cannot be read (Permission denied)") in load_corpus([str(folder)]).skipped
    with pytest.raises(MinidsError, match="Permission denied"):
        load_corpus([str(folder / "b.txt")])


def test_what_is_no_regular_file_is_not_opened(folder, monkeypatch):
    """Opening a named pipe would wait for ever; this stands in for one on every system."""
    is_file = corpus.Path.is_file
    monkeypatch.setattr(corpus.Path, "is_file", lambda path: path.name != "b.txt" and is_file(path))
    assert ("b.txt", "is neither a file nor a folder") in load_corpus([str(folder)]).skipped


def test_folders_without_text_and_empty_requests_are_refused(tmp_path):
    with pytest.raises(MinidsError, match="no text was found"):
        load_corpus([str(tmp_path)])
    (tmp_path / "photo").write_bytes(b"\0")
    with pytest.raises(MinidsError, match="1 passed over, such as photo, which is binary"):
        load_corpus([str(tmp_path)])
    with pytest.raises(MinidsError, match="name builtin, shakespeare"):
        load_corpus([])
    with pytest.raises(MinidsError, match="did you mean shakespeare"):
        load_corpus(["shakespear"])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_long_file_is_cut_at_blank_lines(tmp_path, newline):
    text = "".join(f"paragraph {i}{newline}{'word ' * 40}{newline}{newline}" for i in range(1500)).encode()
    (tmp_path / "long.txt").write_bytes(text)
    pieces = [document.text for document in load_corpus(str(tmp_path / "long.txt")).documents]
    assert b"".join(pieces) == text and len(pieces) > 3
    assert all(piece.startswith(b"paragraph ") for piece in pieces), "a cut is not behind a blank line"
    assert max(map(len, pieces)) <= text_files.DOCUMENT_BYTES and min(map(len, pieces)) > text_files.DOCUMENT_BYTES // 4


def test_a_long_line_is_cut_between_characters(tmp_path):
    text = "aé漢🙂".encode() * 20_000
    (tmp_path / "line.txt").write_bytes(text)
    pieces = [document.text for document in load_corpus([str(tmp_path / "line.txt")]).documents]
    assert b"".join(pieces) == text and len(pieces) > 3
    for piece in pieces:
        piece.decode("utf-8")


def test_shakespeare_has_the_division_that_everyone_uses(tmp_path, monkeypatch):
    play = b"".join(b"line %d\n" % i for i in range(1000))
    (tmp_path / "play").write_bytes(play)
    monkeypatch.setattr(download, "fetch", lambda name: {"shakespeare": tmp_path / "play"}[name])
    found = load_corpus(["shakespeare"])
    train, validation = found.split(0.3)
    assert found.domains == ("shakespeare",)
    assert texts(train) == [play[: int(len(play) * 0.9)]] and texts(validation) == [play[int(len(play) * 0.9) :]]
    with pytest.raises(MinidsError, match="twice"):
        load_corpus(["shakespeare", "shakespeare"])


def test_the_table_shows_each_domain_and_what_was_passed_over(folder):
    table = describe(load_corpus([str(folder)])).splitlines()
    assert table[0].split() == ["domain", "documents", "bytes", "begins", "with"]
    assert table[1].split() == ["notes.d", "3", "22", "first", "é"]
    assert table[2].startswith("Passed over 3 files: ") and "photo.raw is binary" in table[2]
    long = describe(corpus_of(a=[b"word\n" * 100])).splitlines()[1]
    assert long.endswith(("word " * 12)[:60]) or long.endswith(("word " * 12).strip())


# The built-in corpus.


@pytest.fixture(scope="module")
def built_in():
    return load_corpus(["builtin"])


def test_the_built_in_corpus_has_three_domains_of_like_size(built_in):
    assert built_in.domains == ("prose", "code", "arithmetic")
    for domain in built_in.domains:
        size = sum(len(document.text) for document in built_in.of(domain))
        most = builtin.DOMAIN_BYTES[domain]
        assert most / 2 < size <= most, f"{domain} has {size} bytes"
        assert all(document.size <= builtin.DOCUMENT_BYTES for document in built_in.of(domain))
        names = [document.name.split("#")[0] for document in built_in.of(domain)]
        assert names == sorted(names), f"{domain} has no fixed order"
    train, validation = built_in.split(0.1)
    assert train.domains == validation.domains == built_in.domains


def test_every_built_in_document_is_text_and_its_domain_shows(built_in):
    for document in built_in.documents:
        text = document.text.decode("utf-8")
        assert text.strip() and "\0" not in text, document.name
        if document.domain == "prose":
            assert ">>>" not in text, f"{document.name} has an interpreter session in it"
        if document.domain == "code":
            assert text.isascii(), f"{document.name} is not ASCII"


def test_no_module_gives_both_prose_and_code(built_in):
    prose = {document.name.removeprefix("modules/").split("#")[0] for document in built_in.of("prose")}
    code = {document.name.split("#")[0] for document in built_in.of("code")}
    assert not prose & code


def test_every_worked_answer_is_right(built_in):
    chain = re.compile(r"\d+(?: [-+*/] \d+)*(?: = \d+(?: [-+*/] \d+)*)+")
    found = 0
    for document in built_in.of("arithmetic"):
        for equation in chain.findall(document.text.decode()):
            terms = equation.split(" = ")
            assert len({eval(term) for term in terms}) == 1, f"{document.name}: {equation}"
            found += 1
    assert found > 10_000


def made_library(folder):
    """A standard library of modules, one of each kind."""
    sentence = "This sentence of {} is long enough to be read as a piece of prose."
    files = {
        "explains.py": f'"""{sentence.format("a module")}\n\n>>> print(1)\n1\n"""\n'
        + "\n".join(f'def f{i}():\n    """{sentence.format(i)}"""\n' for i in [*range(9), 0]),
        "computes.py": "def add(first, second):\n    return first + second\n" * 20,
        "copies.py": "# a copy of computes\n" + "def add(first, second):\n    return first + second\n" * 20,
        "licensed.py": "#! python\n# Copyright of somebody\n#\n\n" + "def licensed(text):\n    return text.lower()\n" * 20,
        "table.py": "numbers = [" + "1, 2, 3, " * 200 + "]\n",
        "test/test_it.py": "def test(first, second):\n    return first\n" * 20,
        "_sysconfigdata_x.py": "build_time_vars = dict(path='somewhere')\n" * 20,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def test_prose_is_the_english_of_docstrings_and_code_the_sources(tmp_path, monkeypatch):
    made_library(tmp_path)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    found = load_corpus(["builtin"])
    (explained,) = (document for document in found.of("prose") if document.name == "modules/explains.py")
    paragraphs = explained.text.decode().strip().split("\n\n")
    assert len(paragraphs) == 10 and all(p.startswith("This sentence of") for p in paragraphs), paragraphs
    computes, licensed = found.of("code")
    assert (computes.name, licensed.name) == ("computes.py", "licensed.py"), "a near-duplicate was kept"
    assert computes.text == (tmp_path / "computes.py").read_bytes(), "the source was changed"
    assert licensed.text.startswith(b"def licensed"), "the licence is still there"
    assert load_corpus("builtin").sha256 == found.sha256, "the second call gave another corpus"


def test_a_python_without_sources_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "python311.zip"))
    with pytest.raises(MinidsError, match="no readable sources"):
        load_corpus(["builtin"])
