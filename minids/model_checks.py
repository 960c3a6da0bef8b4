"""What a model can be given: tokens, targets and prescribed experts, refused in one line before anything is computed."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from minids.backend import op
from minids.config import ModelConfig
from minids.errors import MinidsError, refuse

Array = np.ndarray


def checked_dtype(dtype: DTypeLike) -> np.dtype:
    """float32 or float64."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64) or dtype is None:
        raise refuse("dtype", str(dtype), "weights are float32, or float64 to check gradients")
    return found


def check_length(length: int, modules: int) -> None:
    """Refuse sequences too short for so many MTP modules."""
    if length <= modules:
        raise refuse("context_length", length, f"{modules} MTP modules look that far ahead; give at least one more")


def check_recompute(config: ModelConfig, recompute: bool) -> None:
    if recompute and config.attention != "mla":
        raise refuse("recompute", True, f"forms MLA's up-projections again, and attention = {config.attention!r}; leave it out")


def check_tokens(config: ModelConfig, tokens: ArrayLike) -> Array:
    """Tokens as an array; refused unless they are integers of shape (B, T), each inside the vocabulary."""
    tokens = _as_array(tokens, "tokens")
    if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
        raise MinidsError(f"tokens: expected integers of shape (batch, time), got {tokens.dtype} of shape {tokens.shape}")
    if tokens.size == 0:
        raise MinidsError(f"tokens: nothing to read in shape {tokens.shape}; give at least one token")
    _inside(config, tokens, tokens, "tokens")
    return tokens


def check_targets(config: ModelConfig, tokens: Array, targets: ArrayLike) -> Array:
    """Targets as an array; refused unless they are like the tokens (B, T), or IGNORE."""
    targets = _as_array(targets, "targets")
    if targets.shape != tokens.shape or not np.issubdtype(targets.dtype, np.integer):
        raise MinidsError(
            f"targets: expected integers of the tokens' shape {tokens.shape}, got {targets.dtype} of {targets.shape}"
        )
    _inside(config, targets[targets != op.cross_entropy.IGNORE], targets, "targets")
    return targets


def check_segments(tokens: Array, segments: ArrayLike) -> Array:
    """Numbers of samples as an array; refused unless they are integers of the tokens' shape (B, T)."""
    segments = _as_array(segments, "segments")
    if segments.shape != tokens.shape or not np.issubdtype(segments.dtype, np.integer):
        found = f"{segments.dtype} of {segments.shape}"
        raise MinidsError(f"segments: expected integers of the tokens' shape {tokens.shape}, got {found}")
    return segments


def check_choices(config: ModelConfig, layers: int, chosen: Sequence[ArrayLike | None]) -> list[Array | None]:
    """Prescribed experts as arrays; refused unless (N, K) integers or None for each of so many layers. A layer compares N."""
    if len(chosen) != layers:
        given = f"those of {len(chosen)} layers"
        raise refuse("chosen", given, f"there are {layers} layers with experts; give one array for each")
    experts, top_k = config.n_routed_experts, config.num_experts_per_tok
    arrays = [None if choice is None else np.asarray(choice) for choice in chosen]
    for layer, choice in enumerate(arrays):
        if choice is None:
            continue
        if choice.ndim != 2 or choice.shape[1] != top_k or not np.issubdtype(choice.dtype, np.integer):
            what = f"{choice.dtype} of shape {choice.shape}"
            raise refuse(f"chosen[{layer}]", what, f"must be integers of shape (tokens, {top_k}), as choices() returns them")
        if choice.size and not 0 <= choice.min() <= choice.max() < experts:
            bad = int(choice.min() if choice.min() < 0 else choice.max())
            raise refuse(f"chosen[{layer}]", bad, f"experts of this model run from 0 to {experts - 1}")
    return arrays


def _inside(config: ModelConfig, ids: Array, whole: Array, name: str) -> None:
    """Refuse the first of ``ids`` that is no token, by its place in ``whole``."""
    vocabulary = config.vocab_size
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
        bad = int(ids.min() if ids.min() < 0 else ids.max())
        where = [int(i) for i in np.argwhere(whole == bad)[0]]
        raise refuse(f"{name}{where}", bad, f"token ids of this model run from 0 to {vocabulary - 1}")


def _as_array(ids: ArrayLike, name: str) -> Array:
    try:
        return np.asarray(ids)
    except ValueError as error:  # NumPy's answer to rows of different lengths
        raise MinidsError(f"{name}: every sequence of a batch must have the same length; pad or cut them") from error
