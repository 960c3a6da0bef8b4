"""Independent implementations to compare minids with.

The main model is Hugging Face transformers' ``DeepseekV3ForCausalLM`` or ``DeepseekV2ForCausalLM``. Multi-token prediction
and the two extra losses, which it does not train, are written here in PyTorch from the equations of the DeepSeek-V3 report
(arXiv 2412.19437); gradients are PyTorch's. Weights go in and gradients come out under the names and in the layout of minids:
Hugging Face checkpoint names, the routed experts of a layer stacked as (E, out, in).
"""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from small_models import CONFIGS, example, random_weights, weight_shapes
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM

from minids.config import ModelConfig

__all__ = [
    "CONFIGS",
    "TorchMTP",
    "balance_loss",
    "computing_in",
    "example",
    "prediction_loss",
    "random_weights",
    "to_transformers",
    "torch_forward",
    "torch_loss_and_grads",
    "transformers_logits",
    "weight_shapes",
]

torch.set_num_threads(1)  # at these sizes a second thread only costs time, much of it on a busy machine

# The main model, from transformers.


class _NoFloat32(TorchFunctionMode):
    """Turns every request for float32 into one for float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def widen(argument):
            return torch.float64 if argument is torch.float32 else argument

        if func is torch.Tensor.float:
            func = torch.Tensor.double
        return func(*map(widen, args), **{key: widen(value) for key, value in (kwargs or {}).items()})


@contextlib.contextmanager
def computing_in(dtype: torch.dtype):
    """Build and run transformers' models in ``dtype`` throughout.

    Even with float64 weights transformers computes in float32, by explicit casts: RMSNorm (``to``), the router's logits
    (``type``) and V2's router softmax (``dtype=``), the attention softmax (``dtype=``), positions, RoPE and YaRN frequencies
    (``dtype=`` and ``float()``) and V2's rotation (``float()``). That leaves differences near 1e-6, enough to hide a wrong
    epsilon. In float64 every such request is widened while this context is open; in float32 nothing is touched.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # for tensors made without a dtype, e.g. the buffer of the routing bias
    try:
        with _NoFloat32() if dtype == torch.float64 else contextlib.nullcontext():
            yield
    finally:
        torch.set_default_dtype(before)


def _dtype(weights: dict[str, np.ndarray]) -> torch.dtype:
    return torch.from_numpy(weights["model.norm.weight"]).dtype


def _transformers_config(config: ModelConfig) -> DeepseekV2Config | DeepseekV3Config:
    names = "vocab_size hidden_size num_hidden_layers first_k_dense_replace intermediate_size moe_intermediate_size "
    names += "num_attention_heads q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim n_routed_experts "
    names += "n_shared_experts num_experts_per_tok n_group topk_group routed_scaling_factor norm_topk_prob rms_norm_eps "
    names += "attention_bias tie_word_embeddings max_position_embeddings bos_token_id eos_token_id"
    fields = {name: getattr(config, name) for name in names.split()}
    fields |= {"num_key_value_heads": config.num_attention_heads}
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope |= {"rope_type": "yarn"} | vars(config.rope_scaling)
    if config.topk_method == "noaux_tc" and config.scoring_func == "sigmoid":
        return DeepseekV3Config(**fields, rope_parameters=rope, rope_interleave=config.rope_interleave, num_mtp_layers=0)
    if config.scoring_func != "softmax" or config.norm_topk_prob or not config.rope_interleave:
        raise ValueError(f"transformers has no model that routes and rotates like {config}")
    return DeepseekV2Config(**fields, rope_parameters=rope, topk_method=config.topk_method)


def _block_state(config: ModelConfig, weights: dict[str, np.ndarray], layer: int) -> dict[str, torch.Tensor]:
    """State of one decoder layer: transformers keeps gate and up projections of all experts in one array (E, 2I, d)."""
    prefix = f"model.layers.{layer}."
    parts = ("self_attn.", "mlp.", "input_layernorm.", "post_attention_layernorm.")
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    state = {name: torch.tensor(value) for name, value in own.items() if name.startswith(parts)}
    if "mlp.gate.weight" in state:
        gate_up = [state.pop(f"mlp.experts.{name}_proj.weight") for name in ("gate", "up")]
        state["mlp.experts.gate_up_proj"] = torch.cat(gate_up, dim=1)  # 2 × (E, I, d) -> (E, 2I, d)
        state["mlp.experts.down_proj"] = state.pop("mlp.experts.down_proj.weight")
        if not config.n_shared_experts:  # there it is a network without hidden units
            none = torch.empty(0, config.hidden_size, dtype=_dtype(weights))
            state |= {f"mlp.shared_experts.{name}_proj.weight": none for name in ("gate", "up")}
            state["mlp.shared_experts.down_proj.weight"] = none.T
    return state


def to_transformers(config: ModelConfig, weights: dict[str, np.ndarray]) -> DeepseekV2ForCausalLM | DeepseekV3ForCausalLM:
    """The main model with these weights, in their dtype, in evaluation mode. Run it inside ``computing_in``."""
    theirs, dtype = _transformers_config(config), _dtype(weights)
    model_class = DeepseekV3ForCausalLM if isinstance(theirs, DeepseekV3Config) else DeepseekV2ForCausalLM
    with computing_in(dtype), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # no shared experts: a network without units
        model = model_class._from_config(theirs, dtype=dtype, attn_implementation="eager", experts_implementation="eager")
        names = ["model.embed_tokens.weight", "model.norm.weight"]
        state = {name: torch.tensor(weights[name]) for name in names}
        state["lm_head.weight"] = torch.tensor(weights[names[0] if config.tie_word_embeddings else "lm_head.weight"])
        for layer in range(config.num_hidden_layers):
            block = _block_state(config, weights, layer)
            state |= {f"model.layers.{layer}.{name}": value for name, value in block.items()}
        model.load_state_dict(state, strict=True)
    return model.eval()


def transformers_logits(config: ModelConfig, weights: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Logits of the main model, (B, T) -> (B, T, V)."""
    model = to_transformers(config, weights)
    with torch.no_grad(), computing_in(_dtype(weights)):
        return model(torch.tensor(tokens), use_cache=False).logits.numpy()


# Multi-token prediction and the losses, in PyTorch from the equations.


class _Depth(nn.Module):
    """What one MTP module owns, under its checkpoint names; the block is transformers' decoder layer."""

    def __init__(self, config: ModelConfig, weights: dict[str, np.ndarray], model: nn.Module, k: int):
        super().__init__()
        layer, d = config.num_hidden_layers + k - 1, config.hidden_size
        prefix = f"model.layers.{layer}."
        norm_class = type(model.model.norm)
        self.enorm, self.hnorm = (norm_class(d, eps=config.rms_norm_eps) for _ in range(2))
        self.shared_head = nn.ModuleDict({"norm": norm_class(d, eps=config.rms_norm_eps)})
        self.eh_proj = nn.Linear(2 * d, d, bias=False)
        self.block = type(model.model.layers[0])(model.config, layer)
        names = ("enorm.weight", "hnorm.weight", "shared_head.norm.weight", "eh_proj.weight")
        state = {name: torch.tensor(weights[prefix + name]) for name in names}
        state |= {f"block.{name}": value for name, value in _block_state(config, weights, layer).items()}
        self.load_state_dict(state, strict=True)


class TorchMTP(nn.Module):
    """The MTP modules of V3 section 2.2 behind ``model``, whose embedding, head and rotary table they share."""

    def __init__(self, config: ModelConfig, weights: dict[str, np.ndarray], model: nn.Module):
        super().__init__()
        with computing_in(_dtype(weights)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            depths = range(1, config.num_nextn_predict_layers + 1)
            self.depths = nn.ModuleList(_Depth(config, weights, model, k) for k in depths)
        self._main = [model]  # in a list, so that its parameters are not counted as ours
        self.eval()

    def forward(self, tokens: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Logits (B, T-k, V) of every depth k from tokens (B, T) and the main model's normalised output (B, T, d)."""
        model, T, logits = self._main[0], tokens.shape[1], []
        for k, depth in enumerate(self.depths, start=1):
            n = T - k  # positions i = 1..T-k
            embedding = depth.enorm(model.model.embed_tokens(tokens[:, k:]))  # (B, n, d), of token i+k
            x = depth.eh_proj(torch.cat([embedding, depth.hnorm(hidden[:, :n])], dim=-1))  # eq. 21
            future = torch.full((n, n), float("-inf"), dtype=x.dtype).triu(diagonal=1)
            positions = model.model.rotary_emb(x, torch.arange(n)[None])
            x = depth.block(x, attention_mask=future, position_embeddings=positions, use_cache=False)  # eq. 22
            hidden = depth.shared_head["norm"](x)
            logits.append(model.lm_head(hidden))  # eq. 23
        return logits


def prediction_loss(
    config: ModelConfig, logits: torch.Tensor, mtp_logits: list[torch.Tensor], targets: torch.Tensor
) -> torch.Tensor:
    """Main loss + λ/D · Σ L^k (eqs 24, 25). L^k has T-k terms per sequence and is divided by T, as the paper writes it."""
    main = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    if not mtp_logits:
        return main
    depths = [
        F.cross_entropy(ahead.flatten(0, 1), targets[:, k:].flatten(), reduction="sum") / targets.numel()
        for k, ahead in enumerate(mtp_logits, start=1)
    ]
    return main + config.mtp_loss_weight / len(depths) * sum(depths)


def balance_loss(config: ModelConfig, scores: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """α · Σ_i f_i P_i of one MoE layer (eqs 17-20), from scores (B, T, E) and chosen experts (B, T, K).

    Averaged over sequences; with ``seq_aux`` off the batch counts as one long sequence. ``f`` carries no gradient. With
    ``aux_loss_counts = unbiased`` f counts the K best scores, as eq. 18 is written, instead of the choice that was made.
    """
    E, K = config.n_routed_experts, config.num_experts_per_tok
    if config.aux_loss_counts == "unbiased":
        chosen = scores.detach().topk(K, dim=-1).indices
    if not config.seq_aux:
        scores, chosen = scores.flatten(0, 1)[None], chosen.flatten(0, 1)[None]
    T = scores.shape[1]
    f = F.one_hot(chosen, E).sum(dim=(1, 2)).to(scores.dtype) * E / (K * T)  # (B, E), eq. 18
    P = (scores / scores.sum(dim=-1, keepdim=True)).mean(dim=1)  # (B, E), eqs 19, 20
    return config.aux_loss_alpha * (f * P).sum(dim=-1).mean()  # eq. 17


class _Routers:
    """Listens to the routers of a model and its MTP modules, and overrules those whose choice is frozen."""

    def __init__(self, config: ModelConfig, model: nn.Module, mtp: TorchMTP, frozen: dict[int, np.ndarray] | None):
        self.config, self.frozen = config, frozen or {}
        self.scores: dict[int, torch.Tensor] = {}  # layer -> (B, T, E)
        self.chosen: dict[int, torch.Tensor] = {}  # layer -> (B, T, K)
        blocks = [*model.model.layers, *(depth.block for depth in mtp.depths)]
        for layer in range(config.first_k_dense_replace, len(blocks)):
            blocks[layer].mlp.gate.register_forward_hook(lambda _, args, output, layer=layer: self.hear(layer, args, output))

    def hear(self, layer, args, output):
        logits, gates, chosen = output  # (N, E), (N, K), (N, K)
        scores = logits.sigmoid() if self.config.scoring_func == "sigmoid" else logits.softmax(dim=-1)
        if layer in self.frozen:
            chosen = torch.as_tensor(self.frozen[layer]).reshape(chosen.shape)
            gates = scores.gather(1, chosen)
            if self.config.norm_topk_prob:
                gates = gates / gates.sum(dim=-1, keepdim=True)
            gates = gates * self.config.routed_scaling_factor
        B, T, _ = args[0].shape
        self.scores[layer], self.chosen[layer] = scores.reshape(B, T, -1), chosen.reshape(B, T, -1)
        return logits, gates, chosen


def _run(config, weights, tokens, frozen=None):
    """Main model, MTP, routers after the forward pass, logits and MTP logits. Call inside ``computing_in``."""
    model = to_transformers(config, weights)
    mtp = TorchMTP(config, weights, model)
    routers = _Routers(config, model, mtp, frozen)
    tokens = torch.tensor(tokens)
    hidden = model.model(tokens, use_cache=False).last_hidden_state
    return model, mtp, routers, model.lm_head(hidden), mtp(tokens, hidden)


def torch_forward(
    config: ModelConfig, weights: dict[str, np.ndarray], tokens: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray], dict[int, np.ndarray]]:
    """Logits (B, T, V), MTP logits [(B, T-k, V)] and the chosen experts of each MoE layer {layer: (B, T or T-k, K)}."""
    with torch.no_grad(), computing_in(_dtype(weights)):
        _, _, routers, logits, ahead = _run(config, weights, tokens)
    return logits.numpy(), [depth.numpy() for depth in ahead], {i: chosen.numpy() for i, chosen in routers.chosen.items()}


def torch_loss_and_grads(
    config: ModelConfig,
    weights: dict[str, np.ndarray],
    tokens: np.ndarray,
    targets: np.ndarray,
    balance: bool = True,
    frozen: dict[int, np.ndarray] | None = None,
) -> tuple[float, dict[str, np.ndarray]]:
    """Total loss and the gradient of every weight but the routing biases, under the names and layout of ``weights``.

    ``balance`` adds the balance loss of every MoE layer, those of the MTP modules included. ``frozen`` maps layers to chosen
    experts (B, T or T-k, K) that replace the router's own choice; gates still come from the scores.
    """
    with computing_in(_dtype(weights)):
        model, mtp, routers, logits, ahead = _run(config, weights, tokens, frozen)
        loss = prediction_loss(config, logits, ahead, torch.tensor(targets))
        if balance:
            loss = loss + sum(balance_loss(config, routers.scores[i], routers.chosen[i]) for i in routers.scores)
        loss.backward()

    parameters = dict(model.named_parameters())
    for k, depth in enumerate(mtp.depths):
        prefix = f"model.layers.{config.num_hidden_layers + k}."
        parameters |= {prefix + name.removeprefix("block."): value for name, value in depth.named_parameters()}
    grads = {}
    for name, parameter in parameters.items():
        grad = (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).numpy()
        if name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            grads[stem + "gate_proj.weight"], grads[stem + "up_proj.weight"] = np.split(grad, 2, axis=1)
        elif name.endswith("experts.down_proj"):
            grads[name + ".weight"] = grad
        elif grad.size:  # the shared network without hidden units is not one of ours
            grads[name] = grad
    return loss.item(), grads
