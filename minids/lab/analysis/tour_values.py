"""The arrays of a real training step, by the names that the tour prints: what flows, what is saved, and every gradient."""

import numpy as np

from minids.backend import use_backend
from minids.layers import moe
from minids.model import DeepSeekV3
from minids.ops import rmsnorm, swiglu

Array = np.ndarray


def step_values(model: DeepSeekV3, tokens: Array, targets: Array) -> dict[str, Array]:
    """Run one forward and one backward pass of an MLA model on tokens (B, T), with the NumPy operations, whose saved
    arrays are known by name; the gradient of a parameter is called "d" and its name."""
    with use_backend("numpy"):
        saved = model.forward(tokens, targets)[1]
        gradients = model.loss_and_grads(tokens, targets)[1]
        values = {p.name: p.value for p in model.parameters}
        values |= {f"d {name}": gradient for name, gradient in gradients.items()}
        values |= model.parameters.buffers
        values |= {"tokens": saved.embedding.tokens, "x": model.embed_tokens.forward(tokens)[0], "logits": model.logits(tokens)}
        values |= _norm("h", saved.norm)
        for layer, block in enumerate(saved.blocks):
            values |= _block(f"layers.{layer}.", block)
        for depth, (at, logits) in enumerate(zip(saved.modules, model.mtp_logits(tokens), strict=True), start=1):
            name = f"layers.{model.config.num_hidden_layers + depth - 1}."
            combine = at.module.combine
            values |= _norm(f"{name}e_norm", combine.embedding) | _norm(f"{name}h_norm", combine.hidden)
            pair = combine.projection.x.reshape(*logits.shape[:2], -1)
            values |= {f"{name}e_norm ; h_norm": pair, f"{name}logits": logits}
            values |= _block(name, at.module.block) | _norm(f"{name}h", at.module.norm)
        head = saved.heads[0].loss
        values["loss"] = np.array(-np.log(head.probs[head.counted, head.targets[head.counted]]).sum() / head.divisor)
    return values


def _norm(name: str, saved: rmsnorm.Saved) -> dict[str, Array]:
    return {name: saved.normed * saved.gain, f"{name} / gain": saved.normed, f"{name}: 1/rms": saved.rstd[..., 0]}


def _block(name: str, saved) -> dict[str, Array]:
    attention = saved.attention
    values = _norm(f"{name}x_norm", saved.input_norm) | _norm(f"{name}u", saved.ffn_norm)
    q, k, v = (x[:, :, 0].swapaxes(1, 2) for x in (attention.attention.q, attention.attention.k, attention.attention.v))
    values |= {f"{name}q": q, f"{name}k": k, f"{name}v": v, f"{name}p": attention.attention.probs[:, :, 0]}
    values[f"{name}o"] = attention.out.x.reshape(*v.shape)
    values[f"{name}k_rope"] = k[:, :, 0, -2 * attention.latent.rope.cos.shape[-1] :]
    values |= _norm(f"{name}c_kv_norm", attention.latent.norm)
    if attention.queries.norm is not None:
        values |= _norm(f"{name}c_q_norm", attention.queries.norm)
        values[f"{name}c_q"] = attention.queries.norm.normed / attention.queries.norm.rstd
    ffn = saved.ffn
    if not isinstance(ffn, moe.Saved):
        return values | _swiglu(name, ffn.swiglu, ffn.down.x)
    routing, experts = ffn.routing, ffn.experts.experts
    values |= {f"{name}s": routing.scores, f"{name}g": routing.gates, f"{name}chosen": routing.chosen}
    values[f"{name}dispatched u"] = experts.rows
    values |= _swiglu(f"{name}experts ", experts.inner, experts.act)
    outputs = ffn.experts.combine.by_token.reshape(experts.rows.shape)  # a token's side by side
    values[f"{name}experts out"] = values[f"{name}experts y"] = outputs
    if ffn.balance is not None:
        values |= {f"{name}s / Σ s": ffn.balance.share.reshape(routing.scores.shape), f"{name}f": ffn.balance.load[:, 0]}
        values[f"{name}L_bal"] = np.array(ffn.balance_loss)
    if ffn.shared is not None:
        values |= _swiglu(f"{name}shared_experts ", ffn.shared.swiglu, ffn.shared.down.x)
    return values


def _swiglu(name: str, saved: swiglu.Saved, act: Array) -> dict[str, Array]:
    arrays = {"gate": saved.gate, "up": saved.up, "sigmoid(gate)": saved.s, "silu(gate)·up": act}
    return {name + part: array.reshape(-1, array.shape[-1]) for part, array in arrays.items()}  # (N, I)
