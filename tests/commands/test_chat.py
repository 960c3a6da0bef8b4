"""minids chat: from a pipe and on a terminal of its own, with every key that ends something."""

import contextlib
import io
import os
import select
import subprocess
import sys
import time

import numpy as np
import pytest
from small_run import MODEL, RUN, quiet, write_text

import minids
from minids.cli import main
from minids.inference.sampling import Token
from minids.terminal import clean
from minids.training.run import Run

GREEDY = ("--temperature", "0", "--max-new-tokens", "12")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    Run.start(folder / "run", MODEL, RUN.replace(steps=1), write_text(folder), "tiny", quiet).run()
    return folder / "run"


def piped(run, text, monkeypatch, capsys, *options):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    code = main(["chat", "--checkpoint", str(run), *options])
    out, err = capsys.readouterr()
    return code, out, err


def greedy(run, text, count=12):
    """What the model writes that knows no longer text than it was trained with."""
    model = minids.load(run)
    model.config = model.config.replace(max_position_embeddings=RUN.context_length)
    return model.tokenizer.decode(minids.generate(model, [256, *model.tokenizer.encode(text)], count))


def test_lines_of_a_pipe_are_continued_as_generate_continues_them(run, monkeypatch, capsys):
    code, out, err = piped(run, "\n\none, two\nthree", monkeypatch, capsys, *GREEDY)
    assert code == 0 and not err
    assert out == "".join(f"{text}{clean(greedy(run, text))}\n" for text in ("one, two", "three"))


def test_more_is_written_than_the_model_was_trained_to_read(run, monkeypatch, capsys):
    text, options = "one, two, three, four, five", ("--temperature", "0", "--max-new-tokens", "40")
    out = piped(run, text, monkeypatch, capsys, *options)[1]
    assert out == f"{text}{clean(greedy(run, text, 40))}\n"
    untold = minids.load(run)
    forgets_nothing = minids.generate(untold, [256, *untold.tokenizer.encode(text)], 40)
    assert untold.tokenizer.decode(forgets_nothing) != greedy(run, text, 40), "the test cannot tell"


def test_an_empty_line_goes_on_where_the_text_stopped(run, monkeypatch, capsys):
    once = piped(run, "one\n\n", monkeypatch, capsys, *GREEDY)[1].replace("\n", "")
    assert once == piped(run, "one", monkeypatch, capsys, "--temperature", "0", "--max-new-tokens", "24")[1].replace("\n", "")


def test_commands(run, monkeypatch, capsys):
    lines = ["/temperature", "/temperature -1", "/temperature 0", "/length 5", "/length 0", "/domain", "/domain rime"]
    lines += ["/domain rhyme", "one", "/domain none", "one", "/tempratur 1", "/", "/help", "/quit", "never read"]
    code, out, err = piped(run, "\n".join(lines), monkeypatch, capsys)
    assert code == 0 and not err
    said = out.splitlines()
    for line, part in zip(
        said,
        [
            *("temperature = '': must be a number", "temperature = -1.0: must be", "temperature 0", "at most 5 tokens"),
            *("max_new_tokens = 0: must be at least 1", "rhyme, none", "domain = 'rime': did you mean rhyme?", "domain rhyme"),
            *("one", "one", "/tempratur: no such command; did you mean temperature?", "/: no such command", "Type a text"),
        ],
        strict=False,
    ):
        assert line.startswith(part), f"{line!r} instead of {part!r}"
    assert f"one{clean(greedy(run, 'one', 5))}\n" in out
    assert "never read" not in out


def test_a_folder_without_a_run_has_no_domains(run, tmp_path, monkeypatch, capsys):
    minids.save(minids.load(run), tmp_path / "model")
    assert "has no run.json" in piped(tmp_path / "model", "/domain rhyme", monkeypatch, capsys)[1]
    code, _, err = piped(tmp_path / "model", "", monkeypatch, capsys, "--domain", "rhyme")
    assert code == 2 and "has no run.json" in err


def test_a_paragraph_ends_a_text(run, monkeypatch, capsys):
    model = minids.load(run)
    said = model.tokenizer.encode("\na b\n\nc").tolist()
    tokens = [Token(i, np.zeros(0)) for i in said]
    monkeypatch.setattr("minids.commands.chat.stream", lambda *_, **__: iter(tokens))
    assert piped(run, "x", monkeypatch, capsys)[1] == "x\na b\n\n"


@pytest.mark.skipif(os.name != "posix", reason="a terminal of its own is made by the system's pty")
@pytest.mark.parametrize("end", ["/quit\n", "\x04"])
def test_on_a_terminal(run, end):
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "minids", "chat", "--checkpoint", str(run), "--temperature", "0"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=_own_terminal
    )
    os.close(theirs)
    screen = Screen(ours)
    try:
        screen.until("> ")
        assert "/temperature X" in screen.text
        screen.type("\n")
        screen.until("> ")
        screen.type("/length 12\n")
        screen.until("at most 12 tokens")
        screen.until("> ")
        screen.type("one, \n")
        screen.until("one, ", "one, ", "> ")
        screen.type("/length 100000\n")
        screen.until("at most", "> ")
        screen.type("half a line")
        screen.until("half a line")
        screen.interrupt("/quit or Ctrl-D ends")
        screen.until("> ")
        screen.type("two\n")
        screen.until("two", "two")
        screen.interrupt("> ")  # while it writes
        time.sleep(0.5)  # it may have been pressed twice
        screen.type(end)
        assert process.wait(60) == 0
        assert "Traceback" not in screen.text
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _own_terminal():
    """Make the standard input of a new session its terminal, so that Ctrl-C becomes a signal, and one that is heard: a shell's
    background job starts with it ignored."""
    import fcntl
    import signal
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Screen:
    def __init__(self, handle):
        self.handle, self.text, self.seen = handle, "", 0

    def type(self, keys):
        os.write(self.handle, keys.encode())

    def interrupt(self, answer):
        """Ctrl-C until it is answered: while a line is edited, a signal that comes between two looks at the keyboard is heard
        with the next key only."""
        for _ in range(20):
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                return self.until(answer, patience=5)
        raise AssertionError(f"Ctrl-C was not answered by {answer!r}")

    def until(self, *parts, patience=120):
        """Read on until the parts have come, one after the other."""
        deadline = time.monotonic() + patience
        for part in parts:
            while (at := self.text.find(part, self.seen)) < 0:
                assert time.monotonic() < deadline, f"{part!r} did not come after {self.text[self.seen :]!r}"
                if select.select([self.handle], [], [], 1)[0]:
                    self.text += os.read(self.handle, 4096).decode(errors="replace")
            self.seen = at + len(part)
