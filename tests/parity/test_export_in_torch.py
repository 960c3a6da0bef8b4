"""PyTorch's own reader of distributed checkpoints finds every tensor of an export by its name."""

import numpy as np
import pytest
from support import TINY, build

from minids.checkpoint.export import NAMED, TARGETS, export

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("to", TARGETS)
def test_an_export_is_read(to, tmp_path):
    import torch.distributed.checkpoint as dcp

    model = build(TINY.replace(num_experts_per_tok=4), dtype=np.float32)
    export(model, tmp_path, to)
    arrays = {p.name: p.value for p in model.parameters} | model.parameters.buffers
    wanted = dict(NAMED[to](model.config, arrays))
    state = {name: torch.full(array.shape, torch.nan) for name, array in wanted.items()}
    dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(str(tmp_path)))
    for name, array in wanted.items():
        np.testing.assert_array_equal(state[name].numpy(), array, err_msg=name)
