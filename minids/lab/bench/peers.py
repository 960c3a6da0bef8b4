"""The peer: transformers' DeepSeek-V3 on PyTorch, trained on the same weights and batch in the same process.

The weights travel as a checkpoint folder that minids writes and transformers opens. The peer is given what is fastest on a CPU:
PyTorch's fused attention, grouped products over sorted rows for the experts, the fused AdamW.
"""

import importlib
import importlib.util
import tempfile
import warnings
from collections.abc import Callable

from minids.checkpoint.model_folder import save
from minids.config import TrainConfig
from minids.errors import MinidsError
from minids.lab.bench.sizes import Size
from minids.model import DeepSeekV3

EAGER, COMPILED = "torch eager", "torch compiled"

PEERS = {"torch": (EAGER,), "torch-compiled": (EAGER, COMPILED)}  # who takes part, by what was asked for

EXPERTS, ATTENTION = "grouped_mm", "sdpa"  # of transformers' choices the fastest on a CPU at these sizes


def require_torch() -> None:
    """Refuse in one line where the peer is not installed."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise MinidsError(f"against: {' and '.join(missing)} cannot be imported; pip install 'minids[parity]'")


def torch_step(model: DeepSeekV3, size: Size, train: TrainConfig, threads: int, compiled: bool) -> Callable[[], float]:
    """A call that makes one training step of the peer, with clipping and AdamW, and returns its loss before the step."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    peer = as_transformers(model)
    tokens, targets = (torch.tensor(array) for array in size.sequences())
    settings = dict(lr=train.learning_rate, betas=(train.beta1, train.beta2), eps=train.adam_eps)
    optimizer = torch.optim.AdamW(peer.parameters(), weight_decay=train.weight_decay, fused=True, **settings)

    def loss_of_batch() -> torch.Tensor:
        logits = peer(tokens, use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    forward = failing_in_one_line(torch.compile(loss_of_batch)) if compiled else loss_of_batch

    def step() -> float:
        loss = forward()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), train.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def failing_in_one_line(compiled: Callable) -> Callable:
    """``compiled``, whose compiler may be missing or may leave half a library in its cache: one line for pages of trace."""

    def call():
        try:
            return compiled()
        except Exception as error:  # whatever a compiler and a loader raise
            reason = str(error).strip().partition("\n")[0]
            needs = "it needs a C++ compiler and an intact TORCHINDUCTOR_CACHE_DIR; --against torch does without"
            raise MinidsError(f"against: torch-compiled does not compile ({reason}); {needs}") from error

    return call


def as_transformers(model: DeepSeekV3):
    """The peer with the weights of ``model``, in training mode."""
    transformers = importlib.import_module("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(model, folder)
        return transformers.DeepseekV3ForCausalLM.from_pretrained(
            folder, attn_implementation=ATTENTION, experts_implementation=EXPERTS, dtype="float32"
        ).train()
