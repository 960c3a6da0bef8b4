"""Which tensors a configuration has: their names and shapes in memory and on disk, and how one becomes the other.

In memory minids uses the names of the released checkpoints, except that the routed experts of a layer are stacked:

    memory   model.layers.3.mlp.experts.gate_proj.weight      (E, I, d)     likewise up_proj (E, I, d), down_proj (E, d, I)
    disk     model.layers.3.mlp.experts.{e}.gate_proj.weight  (I, d)        one per expert

MTP module k (from 0) is layer L + k: an ordinary block, and enorm, hnorm, eh_proj and shared_head.norm. Releases repeat the
embedding and the head in it, ``embed_tokens`` and ``shared_head.head``. minids shares them, as the paper does (DeepSeek-V3
section 2.2), so it writes the copies for other readers and needs none. Where a folder's differ they are the module's own.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import DTypeLike

from minids.checkpoint.dtypes import FLOATS
from minids.checkpoint.folder import SINGLE_NAME, CheckpointFolder, few
from minids.config import ModelConfig
from minids.errors import MinidsError, refuse
from minids.model import DeepSeekV3

Array = np.ndarray
Shape = tuple[int, ...]

EMBEDDING, FINAL_NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
MTP_NAME = "mtp.safetensors"

_STACK = re.compile(r"(model\.layers\.\d+\.mlp\.experts)\.(gate_proj|up_proj|down_proj)\.weight")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_OWN_MATRIX = re.compile(r"model\.layers\.\d+\.(embed_tokens|shared_head\.head)\.weight")
_DERIVED = ".rotary_emb.inv_freq"  # some older files store the RoPE frequencies, which follow from the configuration


def memory_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Every parameter and buffer of the model by its name in memory, experts stacked."""
    parameters = DeepSeekV3.declared(config)
    return {p.name: p.shape for p in parameters} | {name: buffer.shape for name, buffer in parameters.buffers.items()}


def expected_shapes(config: ModelConfig, layer: int | None = None) -> dict[str, Shape]:
    """Every tensor that a folder must hold, by its name on disk; of one layer only where ``layer`` is given."""
    shapes: dict[str, Shape] = {}
    for name, shape in memory_shapes(config).items():
        if layer is None or _layer(name) == layer:
            shapes |= {expert_name(name, e): shape[1:] for e in range(shape[0])} if is_stack(name) else {name: shape}
    return shapes


def optional_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Tensors that a folder may hold besides: copies of the embedding and head, and where there are no shared experts
    matrices without an element, which is what ``transformers`` makes of them."""
    c, d = config, config.hidden_size
    copies: dict[str, Shape] = dict.fromkeys(shared_copies(c), (c.vocab_size, d))
    if c.n_shared_experts == 0:
        for layer in filter(c.is_moe, range(c.num_hidden_layers + c.num_nextn_predict_layers)):
            for name, shape in (("gate", (0, d)), ("up", (0, d)), ("down", (d, 0))):
                copies[f"model.layers.{layer}.mlp.shared_experts.{name}_proj.weight"] = shape
    return copies


def shared_copies(config: ModelConfig) -> dict[str, str]:
    """Name of a copy that a folder may hold → the tensor it must equal."""
    head = EMBEDDING if config.tie_word_embeddings else HEAD
    copies = {HEAD: EMBEDDING} if config.tie_word_embeddings else {}
    modules = 0 if config.mtp_own_matrices else config.num_nextn_predict_layers
    for layer in range(config.num_hidden_layers, config.num_hidden_layers + modules):
        copies[f"model.layers.{layer}.embed_tokens.weight"] = EMBEDDING
        copies[f"model.layers.{layer}.shared_head.head.weight"] = head
    return copies


def is_stack(name: str) -> bool:
    return _STACK.fullmatch(name) is not None


def expert_name(name: str, expert: int) -> str:
    """``…mlp.experts.gate_proj.weight`` → ``…mlp.experts.7.gate_proj.weight``."""
    return re.sub(r"experts\.(?=\w+\.weight$)", f"experts.{expert}.", name)


def check_names(
    config: ModelConfig, folder: CheckpointFolder, mtp: bool = True, also: Mapping[str, Shape] = MappingProxyType({})
) -> tuple[ModelConfig, str]:
    """Refuse a folder that does not hold exactly the tensors of ``config`` and ``also`` these, in the right shapes, by its
    headers. Returns the configuration, without MTP modules where the folder has none of their tensors or with ``mtp=False``,
    and a note or ""."""
    note, first, modules = "", config.num_hidden_layers, config.num_nextn_predict_layers
    held = {name for name in folder.names() if not name.endswith(_DERIVED)}
    beyond = {name for name in held if (layer := _layer(name)) is not None and first <= layer < first + modules}
    if modules and not (mtp and beyond):
        if mtp:
            note = f"{folder.path}: has no MTP weights (num_nextn_predict_layers = {modules}); opened without them"
        held -= beyond
        config = config.replace(num_nextn_predict_layers=0)
    moe_layers = config.num_hidden_layers - config.first_k_dense_replace
    least = 7 * config.num_hidden_layers + 3 * moe_layers * config.n_routed_experts  # tensors
    if least > 2 * len(held) + 1000:  # of a far larger model; its names are not listed, there could be billions
        raise MinidsError(f"{folder.path}: config.json asks for at least {least:,} tensors; the folder holds {len(held):,}")
    wanted, optional = {**expected_shapes(config), **also}, optional_shapes(config)
    if missing := [name for name in wanted if name not in held]:
        hint = " (should tie_word_embeddings be true?)" if missing == [HEAD] else ""
        if all((_layer(name) or 0) >= first for name in missing):
            hint = " (the MTP module is there only in part; mtp=False, or --no-mtp, opens the folder without it)"
        raise MinidsError(f"{folder.path}: missing {few(missing, 'tensor')}, as config.json asks for{hint}")
    if surplus := held - wanted.keys() - optional.keys():
        raise MinidsError(f"{folder.path}: surplus {few(surplus, 'tensor')}, which config.json has no place for")
    _check_shapes(folder, {name: shape for name, shape in (optional | wanted).items() if name in held})
    return config, note


def check_layer(config: ModelConfig, folder: CheckpointFolder, layer: int) -> None:
    """Refuse a layer (from 0; MTP modules follow the main layers) that is not there or not of the configuration's shapes."""
    last = config.num_hidden_layers + config.num_nextn_predict_layers - 1
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or not 0 <= layer <= last:
        raise refuse("layer", layer, f"{folder.path} has layers 0 to {last}, MTP modules included")
    _check_shapes(folder, expected_shapes(config, layer))


def with_own_matrices(config: ModelConfig, folder: CheckpointFolder) -> ModelConfig:
    """The configuration, with embeddings and heads of the MTP modules' own if one of the folder's differs from the model's. A
    head that differs from the embedding that it is tied to is refused."""
    for copy, original in shared_copies(config).items():
        if copy in folder and not folder.equal(copy, original):
            if copy == HEAD:
                why = "but config.json says tie_word_embeddings, which makes them one; say false there to use both"
                raise MinidsError(f"{folder.path}: tensor {copy!r} differs from {original!r}, {why}")
            return config.replace(mtp_own_matrices=True)
    return config


def _layer(name: str) -> int | None:
    match = _LAYER.match(name)
    return int(match[1]) if match and len(match[1]) < 10 else None


def _check_shapes(folder: CheckpointFolder, shapes: Mapping[str, Shape]) -> None:
    if wrong := [name for name, shape in shapes.items() if folder.shape(name) != shape]:
        asked = f"has shape {list(folder.shape(wrong[0]))}, config.json asks for {list(shapes[wrong[0]])}"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise MinidsError(f"{folder.path}: tensor {wrong[0]!r} {asked}{more}")
    for name in shapes:
        if folder.dtype(name) not in FLOATS:
            raise MinidsError(f"{folder.path}: tensor {name!r} is of type {folder.dtype(name)}; weights are real numbers")


def assemble(folder: CheckpointFolder, name: str, dtype: DTypeLike = np.float32, out: Array | None = None) -> Array:
    """One parameter by its name in memory: experts stacked (E, …), anything else as it lies on disk. Where an MTP module has
    one matrix of its own and not the other, that is the model's."""
    if (own := _OWN_MATRIX.fullmatch(name)) and name not in folder:
        head = HEAD if HEAD in folder else EMBEDDING
        name = EMBEDDING if own[1] == "embed_tokens" else head
    if not is_stack(name):
        return folder.tensor(name, dtype=dtype, out=out)
    stack = np.empty(ExpertStack(folder, name).shape, dtype) if out is None else out
    for expert in range(len(stack)):
        folder.tensor(expert_name(name, expert), dtype=dtype, out=stack[expert])
    return stack


def explode(name: str, array: Array) -> list[tuple[str, Array]]:
    return [(expert_name(name, e), matrix) for e, matrix in enumerate(array)] if is_stack(name) else [(name, array)]


def shards(config: ModelConfig, parameters: Mapping[str, Array], limit: int = 5 << 30) -> dict[str, dict[str, Array]]:
    """All tensors of a model as ``write_folder`` takes them: file → name on disk → array (views, nothing is copied). MTP
    modules have a shard of their own: ``transformers`` opens model.safetensors without looking at the index."""
    mtp: dict[str, Array] = {}
    main: list[tuple[str, Array]] = []
    copies = shared_copies(config)
    tensors = [item for name, array in parameters.items() for item in explode(name, array)]
    tensors += [(name, parameters[original]) for name, original in copies.items() if name != HEAD]
    tensors += [(n, np.empty(shape, np.float32)) for n, shape in optional_shapes(config).items() if n not in copies]
    for name, array in tensors:
        if (_layer(name) or 0) >= config.num_hidden_layers:
            mtp[name] = array
        else:
            main.append((name, array))
    return in_shards(main, limit) | ({MTP_NAME: mtp} if mtp else {})


def in_shards(tensors: Iterable[tuple[str, Array]], limit: int = 5 << 30) -> dict[str, dict[str, Array]]:
    """Name and array, in files of at most ``limit`` bytes but for a tensor that is larger: file → name → array."""
    parts: list[dict[str, Array]] = [{}]
    size = 0
    for name, array in tensors:
        if parts[-1] and size + array.nbytes > limit:
            parts.append({})
            size = 0
        parts[-1][name] = array
        size += array.nbytes
    count = len(parts)
    names = [SINGLE_NAME] if count == 1 else [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    return dict(zip(names, parts, strict=True))


class ExpertStack:
    """The experts of one projection as they would stand in memory, (E, out, in), each converted when it is asked for."""

    def __init__(self, folder: CheckpointFolder, name: str):
        self._folder, self._name = folder, name
        self.dtype = np.dtype(np.float32)
        count = 0
        while expert_name(name, count) in folder or expert_name(name, count) in folder.absent:  # the absent fail when read
            count += 1
        self.shape = (count, *folder.shape(expert_name(name, 0)))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, expert: int) -> Array:
        return self._folder.cached(expert_name(self._name, range(len(self))[expert]))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        """NumPy would otherwise build the whole stack, unasked, from ``len`` and indexing."""
        raise TypeError(f"{self._name}: these experts are on disk; take them one at a time, or use assemble()")
