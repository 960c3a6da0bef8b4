"""Dispatch: every (token, choice) pair goes out exactly once, and every gradient comes back."""

import numpy as np
import support
from hypothesis import given

from minids import check
from minids.ops import dispatch


@given(support.choices())
def test_every_pair_appears_exactly_once_and_rows_are_sorted_by_expert(drawn):
    chosen, experts = drawn
    plan = dispatch.plan(chosen, experts)
    assert sorted(plan.order) == list(range(chosen.size)), "a (token, choice) pair is missing or doubled: tokens were dropped"
    np.testing.assert_array_equal(plan.order[plan.place], np.arange(chosen.size))
    np.testing.assert_array_equal(plan.counts, [(chosen == e).sum() for e in range(experts)])
    assert plan.starts[0] == 0 and plan.starts[-1] == chosen.size
    for e in range(experts):
        pairs = plan.order[plan.starts[e] : plan.starts[e + 1]]
        assert (chosen.reshape(-1)[pairs] == e).all(), f"rows of expert {e} hold pairs that chose another"
        assert (np.diff(pairs) > 0).all(), "within an expert tokens keep their order"


@given(support.choices())
def test_forward_copies_and_backward_sums_the_copies(drawn):
    chosen, experts = drawn
    tokens, top_k = chosen.shape
    x = np.random.default_rng(tokens).standard_normal((tokens, 3))
    plan = dispatch.plan(chosen, experts)
    rows, saved = dispatch.forward(x, plan)
    d_rows = np.random.default_rng(top_k).standard_normal(rows.shape)
    want_dx, row = np.zeros_like(x), 0
    for e in range(experts):
        for n in range(tokens):
            if e in chosen[n]:
                np.testing.assert_array_equal(rows[row], x[n])
                want_dx[n] += d_rows[row]
                row += 1
    assert row == len(rows) == tokens * top_k
    support.assert_close(dispatch.backward(d_rows, saved), want_dx)


def test_gradient():
    plan = dispatch.plan(np.array([[0, 3], [3, 1], [3, 0]]), 5)  # experts 2 and 4 unused
    x = np.random.default_rng(0).standard_normal((3, 4))
    check.gradient(lambda x: dispatch.forward(x, plan), dispatch.backward, {"x": x}).raise_if_wrong()
