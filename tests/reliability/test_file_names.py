"""Names of files that are no Unicode, or that a terminal would obey: everything that reads, writes or shows one."""

import json
import os
import sys

import pytest
from small_run import MODEL, RUN

from minids.cli import main
from minids.training.corpus import load_corpus
from minids.training.metrics import read_metrics
from minids.training.run import Run

TEXT = "one, two, three, four, five; once I caught a fish alive.\n\n" * 40
NAMES = [b"caf\xe9", b"\xff\xfe", b"\x1b[31mred", b"two\nlines", b"\xed\xa0\x80", "日本語 👩\u200d💻".encode()]


def path_of(tmp_path, name: bytes) -> str:
    path = os.path.join(os.fsencode(tmp_path), name)
    try:
        os.mkdir(path)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    return os.fsdecode(path)


@pytest.mark.skipif(sys.platform == "win32", reason="names are Unicode there")
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_read_trained_on_and_resumed(tmp_path, name, capsys):
    folder = path_of(tmp_path, name)
    for inner in (name + b".txt", b"other.txt"):
        with open(os.path.join(os.fsencode(folder), inner), "w") as file:
            file.write(TEXT + repr(inner))
    with open(os.path.join(os.fsencode(folder), name + b".bin"), "wb") as file:
        file.write(b"\0")
    corpus = load_corpus([folder])
    assert len(corpus.documents) == 2 and len(corpus.skipped) == 1 and len(corpus.sha256) == 64
    out = folder + "-run"
    assert json.loads(json.dumps(corpus.domains)) == list(corpus.domains)
    run = Run.start(out, MODEL, RUN.replace(steps=2), [folder], "tiny")
    checkpoint = run.run()
    Run.resume(out).run()
    assert read_metrics(run.folder.metrics)
    for command in (["info", "--checkpoint", out], ["generate", "--checkpoint", str(checkpoint), "--max-new-tokens", "2"]):
        assert main(command) == 0
    text = os.fsdecode(name)
    page, picture = folder + ".html", folder + ".png"
    assert main(["route", "--checkpoint", out, "--text", text, "--html", page, "--png", picture]) == 0
    assert main(["page", "--checkpoint", out, "--out", page]) == 0
    assert main(["generate", "--checkpoint", folder + "not", "--prompt", text]) == 2
    printed = "".join(capsys.readouterr())
    assert "\x1b" not in printed
    printed.encode()  # raises where half a surrogate pair is left


def test_two_names_that_look_alike_are_two_domains(tmp_path):
    folders = [path_of(tmp_path, name) for name in (b"caf\xe9", b"caf\xe8")]
    for number, folder in enumerate(folders):
        with open(os.path.join(folder, "a.txt"), "w") as file:
            file.write(f"{number}: {TEXT}")
    assert load_corpus(folders).domains == ("caf\ufffd", "caf\ufffd-2")
