"""Processes that begin together end together: what stops one of them is said once and stops all.

A rank that raises would leave the others in an exchange that never comes to its end. So it ends them (``MPI_Abort``). Where
all ranks meet the same error, as with a setting that cannot be, the first one says it; what another rank alone meets, that one
says, after a moment in which the first could have. A rank that is killed has no last word: ``mpiexec`` notices, ends the others
and tells.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable

from minids.parallel.communicator import Communicator
from minids.terminal import quietly, say

PATIENCE = 0.5  # seconds that a rank leaves to each rank before it to say what is wrong
LAST_WORDS = 0.2  # seconds that mpiexec gets to read them: what is in the pipe when all are ended is lost


def together(world: Communicator, work: Callable[[], int]) -> int:
    """``work`` on every rank → its exit code, where that is 0 on all; else all processes end. The first rank alone prints."""
    if world.size == 1:
        return work()
    with quietly(world.rank > 0) as unsaid:
        try:
            code = work()
        except BaseException:
            code = 1
            unsaid.append(traceback.format_exc().rstrip())
            if not world.rank:
                say(unsaid[-1], file=sys.stderr)
    if code:
        if world.rank:
            time.sleep(PATIENCE * world.rank)
            for line in unsaid:
                say(f"process {world.rank}: {line}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(LAST_WORDS)
        world.abort(code)
    return code
