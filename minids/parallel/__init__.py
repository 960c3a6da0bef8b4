"""Training on several processes, as DeepSeek-V3 was trained (section 3.2): data parallelism with ZeRO-1, expert
parallelism, pipelines; and redundant experts to serve with (section 3.4).

``communicator`` has the few verbs by which processes exchange arrays, over MPI or, for a single process, by itself; all else in
this room is built on them. A process is a *rank*; ranks are numbered from 0.
"""
