"""What ``minids bench decode`` measures is what it says: the same step by every cache, and a cache left as it was."""

import numpy as np
import pytest
from support import TINY, build

from minids.cli import main
from minids.inference.compiled import Step
from minids.inference.decoder import Decoder
from minids.lab.analysis.kv_cache import cache_bytes
from minids.lab.bench import decode
from minids.lab.bench.sizes import Size

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
    monkeypatch.setattr(Step, "main", lambda self, *_: taken.append(1) or np.zeros((1, 12), np.float32))
    decode._one_more(MODEL, "absorbed, layers", 8)[0]()
    assert not taken
    decode._one_more(MODEL, "absorbed", 8)[0]()
    assert taken


@pytest.mark.parametrize("cache", ["latent", "full"])
def test_a_filled_cache_has_the_length_asked_for(cache):
    decoder = decode.filled(Decoder(MODEL, cache, 3), 250, room=20)
    assert decoder.lengths.tolist() == [250] * 3 and decoder.cache.capacity >= 270
    assert all(np.abs(array[:, :, :250]).min() > 0 for array in decoder.cache.arrays)


def test_what_is_found_is_printed(monkeypatch):
    monkeypatch.setattr(decode, "LONGEST_WITHOUT_CACHE", 16)
    monkeypatch.setattr(decode, "NEW_TOKENS", 6)
    for call, few in (("by_context", (8, 32)), ("by_batch", (1, 3)), ("many_at_once", (1, 5))):
        whole = getattr(decode, call)
        monkeypatch.setattr(decode, call, lambda model, rounds, whole=whole, few=few: whole(model, rounds, few))
    whole = decode.generation
    monkeypatch.setattr(decode, "generation", lambda *arguments: whole(*arguments, 6))
    monkeypatch.setitem(decode.SIZES, "A-12x64", Size(MODEL.config, 1, 1))
    told = []
    found = decode.run(("A-12x64",), 1, 1, None, say=told.append)
    assert told == [f"A: {part}" for part in decode.PARTS]
    rows = found["models"]["A"]["context"]
    assert [r["mode"] for r in rows if r["context"] == 32] == list(decode.MODES[1:]), "no cache beyond the limit"
    latent, full = (next(r for r in rows if r["mode"] == m and r["context"] == 32)["cache_bytes"] for m in ("absorbed", "full"))
    assert latent == 2 * 32 * 9 * 4 and full == 2 * 32 * 4 * (10 + 3) * 4
    text = decode.table(found)
    for part in (
        "greedy, 6 new tokens",
        "absorbed, layers, against naive",
        "where absorption loses",
        f"at {found['models']['A']['absorption_pays_until']:.0f} tokens",
        "batch",
    ):
        assert part in text, f"{part!r} is not in the table"
    assert found["models"]["A"]["generation"]["full"]["same_text_as_absorbed"] == 1
    found["models"]["A"]["absorption_pays_until"] = None
    assert "absorption never needs more operations" in decode.table(found)
    found["models"]["A"] = {"absorption_pays_until": None}
    assert "greedy" not in decode.table(found), "a part that was not measured"


def test_parts_belong_to_decode(capsys):
    assert main(["bench", "train", "--parts", "batch"]) == 2
    assert "parts = ('batch',): decode has parts, train has none" in capsys.readouterr().err


def test_only_the_parts_asked_for_are_measured(monkeypatch):
    monkeypatch.setattr(decode, "by_batch", lambda model, rounds: [{"batch": 1, "tokens_per_second": 7.0, "cache_bytes": 8}])
    found = decode.run(("A-12x64",), 1, 1, None, ("batch",), lambda part: None)
    assert found["models"]["A"].keys() == {"batch", "absorption_pays_until"}
    assert "sequences at once" in decode.table(found) and "behind a context" not in decode.table(found)
