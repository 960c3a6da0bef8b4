"""The largest logit of each head, against the attention weights that it would make."""

import numpy as np
import support

from minids.ops import attention, largest_logit


def test_it_is_the_largest_over_all_queries_and_the_keys_they_see():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(3, 7, 2, size)) for size in (5, 5, 4))
    found = largest_logit.forward(q, k, 0.3)
    by_hand = [max(0.3 * q[b, i, h] @ k[b, j, h] for b in range(3) for i in range(7) for j in range(i + 1)) for h in range(2)]
    support.assert_close(found, by_hand)
    k[:, -1] = 1e6 * q[:, 0]  # a key that only the last query sees, and whose logit with the first would be the largest
    alone = largest_logit.forward(q[:, :-1], k[:, :-1], 0.3)
    support.assert_close(
        np.maximum(alone, 0.3 * np.einsum("bhd,bhd->bh", q[:, -1], k[:, -1]).max(axis=0)), largest_logit.forward(q, k, 0.3)
    )
    assert attention.forward(q, k, v, 0.3)[1].probs.shape == (3, 2, 1, 7, 7), "the same layout as attention's"
