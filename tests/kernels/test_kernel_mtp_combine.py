import numpy as np
from agreement import assert_twins, dtypes, examples, layouts, normal, seeds
from hypothesis import given
from hypothesis import strategies as st


@examples
@given(seed=seeds, dtype=dtypes, layout=layouts, time=st.integers(1, 6), size=st.integers(3, 20))
def test_agrees_with_ops(seed, dtype, layout, time, size):
    rng = np.random.default_rng(seed)
    embedding, hidden, dy = (normal(rng, (2, time, size), dtype, layout) for _ in range(3))
    gains = normal(rng, (size,), dtype), normal(rng, (size,), dtype)
    assert_twins("mtp_combine", (embedding, hidden, *gains, normal(rng, (size, 2 * size), dtype), 1e-6), (dy,), floor=3)
