"""Speed, side by side with the peers: ``minids bench train|kernels|decode``.

    sizes      what is measured: two models and three batches                           ``bench/sizes.py``
    timing     everything takes turns in one process; medians, and ratios within a turn    ``bench/timing.py``
    machine    what the machine can do at best: a matrix product, a copy                ``bench/machine.py``
    train      a whole training step                                                    ``bench/train.py``
    kernels    every operation, plain and compiled                                      ``bench/kernels.py``, ``operations.py``
    doctor     what the speed depends on here, and what would make it better            ``bench/doctor.py``
    decode     generation, caches, batches                                              ``bench/decode.py``
    peers      transformers' model on PyTorch, from a checkpoint that minids wrote      ``bench/peers.py``

A speed alone says as much about the machine, and about who else was using it, as about the code. A ratio of two things that
took turns in the same minute, and the share of what the machine can do at best, say what the code is worth.
"""
