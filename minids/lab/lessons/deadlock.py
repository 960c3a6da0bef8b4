"""A dead-lock between two real processes, and the same without:

    mpiexec -n 2 python -m minids.lab.lessons.deadlock skip
    mpiexec -n 2 python -m minids.lab.lessons.deadlock

Both ranks send a row to rank 0 and none to rank 1. A rank that skips the exchange, because no row comes to it, keeps the other
waiting. Nobody ends the first command but ``MPIEXEC_TIMEOUT``.
"""

import sys

import numpy as np

from minids.parallel.mpi import world
from minids.terminal import say


def main(skip: bool) -> None:
    ranks = world()
    came = ranks.all_to_all(np.array([1, 0]))  # numbers of rows, before the rows themselves
    say(f"rank {ranks.rank} gets {came.sum()} rows")
    sys.stdout.flush()
    if skip and not came.sum():
        say(f"rank {ranks.rank} skips")
        sys.stdout.flush()
        ranks.receive((1,), float, 0)  # goes on to wait for something that nobody sends
    got = ranks.all_to_all_v(np.ones((1, 3)), [1, 0], came)
    say(f"rank {ranks.rank} has {len(got)} rows")


if __name__ == "__main__":
    main(skip="skip" in sys.argv[1:])
