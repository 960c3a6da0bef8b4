"""The peer that decoding is timed against writes the same text: what is compared is speed and nothing else."""

import numpy as np
import pytest
from support import TINY, build

from minids.inference.generate import generate
from minids.lab.bench import decode

pytestmark = pytest.mark.parity


def test_the_peer_writes_the_same_text():
    model = build(TINY.replace(num_nextn_predict_layers=0, hidden_size=16, moe_intermediate_size=8), dtype=np.float32)
    prompt = np.arange(1, 9)
    peer = decode.torch_generation(model, prompt, 12, 1)()
    assert peer.tolist() == generate(model, prompt, 12).tolist()
