"""Training on several processes, as DeepSeek-V3 was trained (section 3.2): data parallelism, ZeRO-1, expert parallelism and
pipelines; and redundant experts to serve with (section 3.4).

``communicator`` has the few verbs by which processes exchange arrays, ``mpi`` has them over MPI; all else in this room is built
on them. A process is a *rank*; ranks are numbered from 0.
"""
