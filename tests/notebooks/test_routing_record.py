"""The command that looks at the routers while the notebooks' model is trained: what it says to a wrong folder."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("arguments", [[], ["runs/nowhere"]])
def test_a_missing_run_is_one_line_and_no_traceback(builder, arguments):
    command = [sys.executable, str(builder.FOLDER / "routing_record.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=builder.ROOT)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "notebooks/model/README.md" in done.stderr
