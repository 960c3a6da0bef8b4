"""A decoding step of several tokens by two threads: a leader, and a companion that stands ready for orders.

A token's way through the model touches another's at one place only: attention reads the cache entries of the tokens before.
Entries are made at the beginning of a layer. So two neighbouring tokens go through the model side by side, each on a core of
its own, and the second waits in each layer for the entry of the first, which is due at the same moment:

    leader      t        entry | attention, experts | entry | attention, experts | …
                           ↓ told                     ↓ told
    companion   t + 1    entry | attention, experts | entry | attention, experts | …

Each does what ``minids/kernels/decode.py`` does, by the same code in the same order: the bits are those of a step by one
thread. What both read, the attention's weights and the shared expert's, comes from memory once.

A guess is one token's way through one block, which gives nothing to do side by side; there the two share the experts, and
the rows of the head. ``guess_alone`` adds up in the same order, so that a seed draws the same text either way.

Orders lie on a ``board`` of int64; ``take_part`` watches it without holding the GIL. Nobody waits for one who has failed: who
gives up writes ``GONE`` where the other looks.
"""

from __future__ import annotations

import numpy as np

from minids.kernels._atomics import APART, give_way, rest, swap, tell, told
from minids.kernels._gemv import feed_forward, project
from minids.kernels._jit import kernel
from minids.kernels.decode import (
    DOWN,
    FFN_NORM,
    GATE,
    ROUTER,
    SHARED_DOWN,
    SHARED_GATE,
    SHARED_UP,
    UP,
    attention,
    combine,
    entries,
    experts,
    norm,
    route,
)

# Places on the board. Of an order: its number, and what it asks for. Then how far each of the two is.
TICKET, DONE, LEADER, COMPANION, SERVING = 0, APART, 2 * APART, 3 * APART, 4 * APART
TASK, ROWS, SPLIT, START = 5 * APART, 5 * APART + 1, 5 * APART + 2, 5 * APART + 3
BOARD = 6 * APART
LEAVE, VERIFY, GUESS = range(3)
LONGEST = 1 << 16  # an order has fewer stages than this; stages are counted on from order to order, so nothing is ever reset
GONE = np.iinfo(np.int64).max
EAGER = 1 << 13  # looks at the board before a thread that waits offers its core to others: a tenth of a millisecond or two
PATIENCE = 1 << 17  # looks at the board before a companion without orders goes to sleep: a few milliseconds


@kernel
def wait(board, place, number):
    """Until board[place] has reached ``number``. Who is waited for is about as far, unless it was put off its core."""
    looks = 0
    while told(board, place) < number:
        rest()
        looks += 1
        if looks > EAGER:
            give_way()


@kernel
def post(board):
    """Put the order up that was written on the board; whether the companion is awake to see it."""
    swap(board, TICKET, told(board, TICKET) + 1)
    return told(board, SERVING) == 1


@kernel
def read_rows(begin, stop, mine, theirs, board, stage, own, work, latent, cos, sin):
    """Rows ``begin`` … ``stop`` − 1 of the order's x through the main model and the head. Waits for ``theirs``, if any."""
    weights, places, biases, s, final_norm, head_place = own[:6]
    x, logits = work[0][begin:stop], work[1][begin:stop]
    normed = np.empty_like(x)
    positions, sequences = np.arange(begin, stop) + board[START], np.zeros(stop - begin, np.int64)
    for i in range(latent.shape[0]):
        entries(x, normed, weights, places[i], s, positions, sequences, cos, sin, latent[i])
        tell(board, mine, stage + i + 1)
        if theirs >= 0:
            wait(board, theirs, stage + i + 1)
        attention(x, normed, weights, places[i], s, positions, sequences, cos, sin, latent[i])
        experts(x, normed, weights, places[i], biases[i], s)
    norm(x, weights, final_norm, s.d, s.eps, x)
    project(x, stop - begin, weights, head_place, logits.shape[1], s.d, logits)


@kernel
def enter(begin, stop, start, own, work, latent, cos, sin, normed):
    """Rows ``begin`` … ``stop`` − 1 of a guess into an MTP module, as far as its cache. normed (stop − begin, d)."""
    weights, places, s, enorm, hnorm, eh_proj, first = own[0], own[1], own[3], own[7], own[8], own[9], own[10]
    x, embedding, before = work[0][begin:stop], work[2][begin:stop], work[3][begin:stop]
    positions, sequences = np.arange(begin, stop) + start, np.zeros(stop - begin, np.int64)
    combine(embedding, before, weights, enorm, hnorm, eh_proj, s, x)
    entries(x, normed, weights, places[first], s, positions, sequences, cos, sin, latent[0])


@kernel
def attend_and_route(row, start, own, work, latent, cos, sin, inner):
    """The last row through the attention, when all before it are in the cache, and to its experts; a dense block is done."""
    weights, places, biases, s, first = own[0], own[1], own[2], own[3], own[10]
    x, normed, chosen, gates = work[0][row : row + 1], work[4], work[5], work[6]
    place, sequences = places[first], np.zeros(1, np.int64)
    attention(x, inner, weights, place, s, np.arange(row, row + 1) + start, sequences, cos, sin, latent[0])
    if place[ROUTER] >= 0:
        norm(x, weights, place[FFN_NORM], s.d, s.eps, normed)
        route(normed, weights, place, biases[first], s, chosen, gates)
    else:
        experts(x, inner, weights, place, biases[first], s)


@kernel
def some_experts(leads, row, own, work):
    """The last row's routed experts, the leader's part of them, into x; or the others and the shared one, into ``other``."""
    weights, place, s = own[0], own[1][own[10]], own[3]
    x, normed, chosen, gates, other, one = work[0], work[4], work[5], work[6], work[7], np.zeros(1, np.int64)
    if place[ROUTER] < 0:
        return
    share = min(s.top_k - (s.top_k - s.shared_width // s.width + 1) // 2, s.top_k)  # of the routed ones, the leader's
    begin, stop = (0, share) if leads else (share, s.top_k)
    if not leads:
        other[:, :] = 0
    y = x[row : row + 1] if leads else other
    hidden, size = np.empty((1, max(s.width, s.shared_width)), x.dtype), s.width * s.d
    for k in range(begin, stop):
        at = chosen[0, k] * size
        gate, up, down = place[GATE] + at, place[UP] + at, place[DOWN] + at
        feed_forward(normed, one, gates[0, k : k + 1], weights, gate, up, down, s.width, s.d, hidden, y)
    if not leads and place[SHARED_GATE] >= 0:
        gate, up, down = place[SHARED_GATE], place[SHARED_UP], place[SHARED_DOWN]
        feed_forward(normed, one, np.ones(1, x.dtype), weights, gate, up, down, s.shared_width, s.d, hidden, y)


@kernel
def leave(row, own, work):
    """The last row out of the module: both parts of its experts, and the norm."""
    weights, place, s, mtp_norm = own[0], own[1][own[10]], own[3], own[6]
    x, other = work[0][row : row + 1], work[7]
    if place[ROUTER] >= 0:
        for i in range(s.d):
            x[0, i] += other[0, i]
    norm(x, weights, mtp_norm, s.d, s.eps, x)


@kernel
def half_head(leads, row, own, work):
    """The last row's logits of one half of the vocabulary."""
    weights, s, head_place = own[0], own[3], own[5]
    x, logits = work[0][row : row + 1], work[1]
    size = logits.shape[1]
    begin, stop = (0, size // 2) if leads else (size // 2, size)
    part = logits[0, begin:stop].reshape((1, stop - begin))
    project(x, 1, weights, head_place + begin * s.d, stop - begin, s.d, part)


@kernel
def guess_rows(leads, board, stage, own, work, latent, cos, sin):
    """The order's rows through an MTP module of one block: the leader takes the last, whose logits are wanted, the companion
    puts those before into the cache. Then both share the experts of the last, and the head."""
    last, start = board[ROWS] - 1, board[START]
    if leads:
        inner = np.empty_like(work[4])
        enter(last, last + 1, start, own, work, latent, cos, sin, inner)
        wait(board, COMPANION, stage + 1)
        attend_and_route(last, start, own, work, latent, cos, sin, inner)
        tell(board, LEADER, stage + 1)
        some_experts(True, last, own, work)
        wait(board, COMPANION, stage + 2)
        leave(last, own, work)
        tell(board, LEADER, stage + 2)
        half_head(True, last, own, work)
    else:
        if last > 0:
            enter(0, last, start, own, work, latent, cos, sin, np.empty((last, work[4].shape[1]), work[4].dtype))
        tell(board, COMPANION, stage + 1)
        wait(board, LEADER, stage + 1)
        some_experts(False, last, own, work)
        tell(board, COMPANION, stage + 2)
        wait(board, LEADER, stage + 2)
        half_head(False, last, own, work)


@kernel
def guess_alone(board, own, work, latent, mtp_latent, cos, sin):
    """The same by one thread, with the same bits."""
    last, start = board[ROWS] - 1, board[START]
    inner = np.empty((last + 1, work[4].shape[1]), work[4].dtype)
    if last > 0:
        enter(0, last, start, own, work, mtp_latent, cos, sin, inner[:last])
    enter(last, last + 1, start, own, work, mtp_latent, cos, sin, inner[last:])
    attend_and_route(last, start, own, work, mtp_latent, cos, sin, inner[last:])
    some_experts(True, last, own, work)
    some_experts(False, last, own, work)
    leave(last, own, work)
    half_head(True, last, own, work)
    half_head(False, last, own, work)


@kernel
def take_part(leads, board, own, work, latent, mtp_latent, cos, sin):
    """The leader: its part of the order that was posted, then wait for the companion's. The companion: its part of one order
    after the other, until told to leave or until none has come for a while. One function, so that it is compiled once."""
    done, looks = told(board, DONE), 0
    if not leads:
        swap(board, SERVING, 1)
    while True:
        ticket = told(board, TICKET)
        if not leads and ticket == done:
            looks += 1
            if looks < PATIENCE:
                rest()
                continue
            swap(board, SERVING, 0)
            if told(board, TICKET) == done:
                return
            swap(board, SERVING, 1)  # an order came while going to sleep
            continue
        looks, task, stage = 0, board[TASK], ticket * LONGEST
        if task == VERIFY:
            begin, stop = (0, board[SPLIT]) if leads else (board[SPLIT], board[ROWS])
            mine, theirs = (LEADER, -1) if leads else (COMPANION, LEADER)
            read_rows(begin, stop, mine, theirs, board, stage, own, work, latent, cos, sin)
        elif task == GUESS:
            guess_rows(leads, board, stage, own, work, mtp_latent, cos, sin)
        if leads:
            wait(board, DONE, ticket)
            return
        if task == LEAVE:
            swap(board, SERVING, 0)
        tell(board, DONE, ticket)
        if task == LEAVE:
            return
        done = ticket
