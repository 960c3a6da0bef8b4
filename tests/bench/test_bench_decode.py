"""What ``minids bench decode`` measures is what it says: the same step by every cache, and a cache left as it was."""

import numpy as np
import pytest
from support import TINY, build

from minids.analysis.kv_cache import cache_bytes
from minids.bench import decode
from minids.inference.cache import FullCache, LatentCache

MODEL = build(TINY.replace(num_nextn_predict_layers=0), dtype=np.float32)


@pytest.mark.parametrize("mode", ["naive", "absorbed, layers", "absorbed"])
def test_every_way_of_attending_to_a_filled_cache_gives_the_same_logits(mode):
    want = decode._one_more(MODEL, "naive", 40)[0]()
    call, nbytes = decode._one_more(MODEL, mode, 40)
    assert np.abs(call() - want).max() < 1e-4
    assert np.array_equal(call(), call()), "a call changes what the next one sees"
    assert nbytes == cache_bytes(MODEL.config, 40, 1, "fp32")


def test_layers_are_taken_where_layers_are_measured(monkeypatch):
    taken = []
    monkeypatch.setattr(decode.compiled.Step, "main", lambda self, *_: taken.append(1) or np.zeros((1, 12), np.float32))
    decode._one_more(MODEL, "absorbed, layers", 8)[0]()
    assert not taken
    decode._one_more(MODEL, "absorbed", 8)[0]()
    assert taken and decode.compiled.MOST_ROWS > 0


@pytest.mark.parametrize("kind", [LatentCache, FullCache])
def test_a_filled_cache_has_the_length_asked_for(kind):
    cache = decode.filled(MODEL, kind, 20, batch=3, room=5)
    assert cache.lengths.tolist() == [20] * 3 and cache.capacity >= 25
    assert all(np.isfinite(a).all() for a in cache.arrays)


def test_what_is_found_is_printed(monkeypatch):
    monkeypatch.setattr(decode, "LONGEST_WITHOUT_CACHE", 16)
    found = {
        "threads": 1,
        "backend": "numba",
        "new_tokens": 6,
        "models": {
            "A": {
                "generation": decode.generation(MODEL, 2, 1, None, 6),
                "context": decode.by_context(MODEL, 2, (8, 32)),
                "batch": decode.by_batch(MODEL, 2, (1, 3)),
                "at_once": decode.many_at_once(MODEL, 1, (1, 5)),
                "absorption_pays_until": 3.2,
            }
        },
    }
    rows = found["models"]["A"]["context"]
    assert [r["mode"] for r in rows if r["context"] == 32] == list(decode.MODES[1:]), "no cache beyond the limit"
    latent, full = (next(r for r in rows if r["mode"] == m and r["context"] == 32)["cache_bytes"] for m in ("absorbed", "full"))
    assert latent == 2 * 32 * 9 * 4 and full == 2 * 32 * 4 * (10 + 3) * 4
    text = decode.table(found)
    for part in ("greedy, 6 new tokens", "absorbed, layers, against naive", "where absorption loses", "at 3 tokens", "batch"):
        assert part in text, f"{part!r} is not in the table"
    assert found["models"]["A"]["generation"]["full"]["same_text_as_absorbed"] == 1
    found["models"]["A"]["absorption_pays_until"] = None
    assert "absorption never needs more operations" in decode.table(found)
