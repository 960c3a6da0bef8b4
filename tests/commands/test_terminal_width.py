"""On a terminal of any usual width nothing that is printed is wider, and in a file nothing is cut."""

import io
import os
import re
import subprocess
import sys

import pytest

from minids.cli import main
from minids.terminal import cells
from minids.training.printing import beside_bar, progress_bar

COMMANDS = [
    "--help", "info --preset tiny", "info --preset deepseek-v3", "tour --preset deepseek-v3", "compare", "claims", "cost",
    "data", "pipeline", "pipeline --schedule 1F1B --stages 4", "doctor", "study", "study balance --show",
    "train --help", "info --preset nope",
]  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(command: str, monkeypatch, width: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", out)
    main(command.split())
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).split("\n")


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_line_fits(command, width, monkeypatch):
    assert [line for line in printed(command, monkeypatch, width) if cells(line) > width] == []


def test_a_terminal_takes_no_number_away(monkeypatch):
    """Names and remarks give way."""
    narrow = "\n".join(printed("info --preset deepseek-v3", monkeypatch, 80))
    assert "671,026,419,200" in narrow and "37,552,297,472" in narrow


@pytest.mark.parametrize(("columns", "left"), [(200, "all"), (80, "all"), (60, "no MaxVio"), (40, "loss")])
def test_numbers_beside_the_bar_give_way_to_it(columns, left):
    parts = ["loss 2.345", "mtp 2.201", "MaxVio 0.41", "9,876 tokens/s"]
    shown = {"all": " ".join(parts), "no MaxVio": "loss 2.345 9,876 tokens/s", "loss": "loss 2.345"}[left]
    with progress_bar(1000, 0) as bar:
        assert beside_bar(parts, bar, columns) == shown


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminal")
@pytest.mark.parametrize("width", [60, 80, 140])
def test_lines_stand_above_the_bar_and_the_bar_is_one(width):
    """In a pseudo-terminal: whatever was drawn is erased before a line is written."""
    import fcntl
    import pty
    import struct
    import termios

    code = (
        "from minids.training.printing import Voice, beside_bar, progress_bar\n"
        "from minids.terminal import say\n"
        "voice = Voice(say, lambda: None)\n"
        "with progress_bar(30, 0) as bar:\n"
        "    bar.mininterval = 0\n"
        "    for step in range(30):\n"
        "        parts = ['loss 2.345', 'mtp 2.201', 'MaxVio 0.41', '9,876 tokens/s']\n"
        "        bar.set_postfix_str(beside_bar(parts, bar), refresh=False)\n"
        "        bar.update()\n"
        "        if step % 10 == 0:\n"
        "            voice(f'step {step}: validation')\n"
    )
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    got = b""
    try:
        while block := os.read(master, 65536):
            got += block
    except OSError:  # Linux: the other end is closed
        pass
    assert process.wait() == 0
    os.close(master)
    # Each write begins at a line's start: what is left on a line is its last write over the blanks of the ones before.
    drawn = [line.split("\r") for line in got.decode().replace("\x1b[A", "").split("\n")]
    assert max(cells(part) for line in drawn for part in line) <= width
    lines = [[part for part in line if part.strip()] for line in drawn]
    for step in (0, 10, 20):
        (line,) = [line for line in lines if f"step {step}: validation" in line]
        before = drawn[lines.index(line)]
        at = before.index(f"step {step}: validation")
        assert at == 0 or not before[at - 1].strip(), "the bar was not erased"
    assert "█" * 8 in got.decode()


def test_tqdms_own_variable_leaves_the_bar_out(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for value, left_out in (("1", True), ("", False)):
        monkeypatch.setenv("TQDM_DISABLE", value)
        with progress_bar(3, 0) as bar:
            assert bar.disable == left_out
