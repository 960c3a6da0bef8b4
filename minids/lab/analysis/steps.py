"""One training batch walked through the model on paper: every step with its equation, tensors, FLOPs, and what is kept.

A batch of B sequences of T tokens. Steps are listed once per kind of block, with the number of layers that repeat them, so
that V3's 61 blocks are two lists. FLOPs are those of matrix products (a multiplication and an addition are 2), causal
attention counted as T/2 keys a query. No array is made: weight shapes are those that the layers declare (``parameters``), the
shapes of activations follow from them.

Equation numbers are those of the DeepSeek-V3 report (section 2.1.1: 1-11, MLA; section 2.1.2: 12-16, experts, 17-20, balance;
section 2.2: 21-25, multi-token prediction).
"""

from typing import NamedTuple

from minids.config import ModelConfig
from minids.lab.analysis.parameters import Shape, Tensor, layer_tensors


class Kept(NamedTuple):
    """An activation kept for the backward pass.

    ``when``: "always"; "stored", unless the cheap steps are recomputed in the backward pass; "recomputed", only if they are.
    """

    tensor: Tensor
    when: str = "always"


class ForwardStep(NamedTuple):
    """One step of the forward pass, and in words what its backward pass does."""

    stage: str  # the box it belongs to
    layer: int | None  # first layer that has it
    layers: int  # how many layers repeat it
    title: str
    equation: str
    weights: tuple[Tensor, ...]
    output: Tensor
    flops: int  # forward, one layer
    kept: tuple[Kept, ...]
    cached: tuple[Tensor, ...]  # kept while generating
    backward: str
    backward_factor: int  # FLOPs of the backward pass over those of the forward pass


class _Walk:
    """Collects the steps of one configuration and batch."""

    def __init__(self, config: ModelConfig, batch: int, time: int):
        self.c, self.B, self.T = config, batch, time
        self.steps: list[ForwardStep] = []
        self.enter("embedding", None)

    def enter(self, stage: str, layer: int | None, layers: int = 1) -> None:
        self.stage, self.layer, self.layers = stage, layer, layers
        self.shapes: dict[str, Shape] = {t.name: t.shape for t in layer_tensors(self.c, layer)}

    def array(self, name: str, *shape: int) -> Tensor:
        """An activation, named below its layer: ``layers.3.c_kv``."""
        return Tensor(name if self.layer is None else f"layers.{self.layer}.{name}", shape)

    def stored(self, name: str, *shape: int) -> Kept:
        """An activation that is kept unless it is recomputed."""
        return Kept(self.array(name, *shape), "stored")

    def weight(self, name: str) -> Tensor:
        """A parameter of the present layer, or one outside of all layers; routed experts are stacked over all E of them."""
        full = name if self.layer is None else f"model.layers.{self.layer}.{name}"
        return Tensor(full.replace("experts.", "experts.*.") if ".experts." in full else full, self.shapes[name])

    def add(self, title, equation, output, weights=(), flops=0, kept=(), cached=(), backward="", factor=2) -> None:
        kept = tuple(k if isinstance(k, Kept) else Kept(k) for k in kept)
        step = title, equation, tuple(weights), output, flops, kept, tuple(cached), backward, factor
        self.steps.append(ForwardStep(self.stage, self.layer, self.layers, *step))

    def norm(self, title: str, weight: str, name: str, *shape: int, equation: str = "RMSNorm", feeds: bool = True) -> None:
        """Keeps n = x/rms and 1/rms for itself and, if it ``feeds`` a product, y = n·g for that; recomputed, only x."""
        out = self.array(name, *shape)
        kept = [self.stored(f"{name} / gain", *shape), self.stored(f"{name}: 1/rms", *shape[:-1])]
        kept += [Kept(self.array(f"{name}: input", *shape), "recomputed")] + [Kept(out, "stored")] * feeds
        back = "dx = (u − n·mean(u·n))/rms, u = dy·g; dg = Σ dy·n"
        self.add(title, equation, out, [self.weight(weight)], kept=kept, backward=back)

    def linear(self, title: str, equation: str, weight: Tensor, output: Tensor, tokens: int, kept=(), cached=()) -> None:
        """output = weight · input (+ bias), for ``tokens`` vectors."""
        weights, back = [weight], "dx = dy W, dW = dyᵀ x"
        bias = weight.name.removeprefix(f"model.layers.{self.layer}.").removesuffix("weight") + "bias"
        if bias in self.shapes:
            weights.append(self.weight(bias))
            back += ", db = Σ dy"
        self.add(title, equation, output, weights, 2 * tokens * weight.size, kept, cached, back)


def walk(config: ModelConfig, batch: int, time: int) -> list[ForwardStep]:
    """All forward steps of a training batch, in order; the backward pass is the same list read upwards."""
    w = _Walk(config, batch, time)
    c, d, layers = config, config.hidden_size, config.num_hidden_layers
    embedding = w.weight("model.embed_tokens.weight")
    head = embedding if c.tie_word_embeddings else w.weight("lm_head.weight")
    x, ids = w.array("x", batch, time, d), Tensor("tokens", (batch, time))
    back = "add each token's gradient into its row"
    w.add("look up a row per token", "x = Emb(t)", x, [embedding], kept=[ids], backward=back)
    dense = min(c.first_k_dense_replace, layers)
    if dense:
        w.enter("dense block", 0, dense)
        _block(w, time)
    if dense < layers:
        w.enter("MoE block", dense, layers - dense)
        _block(w, time)
    w.enter("head", None)
    w.norm("final norm", "model.norm.weight", "h", batch, time, d)
    _head(w, head, "logits", time, "softmax and cross-entropy: L_main")
    for depth in range(1, c.num_nextn_predict_layers + 1):
        _mtp(w, depth, head)
    return w.steps


def _block(w: _Walk, T: int) -> None:
    B, d = w.B, w.c.hidden_size
    w.norm("norm before attention", "input_layernorm.weight", "x_norm", B, T, d)
    (_mla if w.c.attention == "mla" else _plain_attention)(w, T)
    w.norm("norm before the feed-forward", "post_attention_layernorm.weight", "u", B, T, d)
    if w.c.is_moe(w.layer):
        _experts(w, T)
    else:
        _swiglu(w, "dense network", "mlp", B * T, w.c.intermediate_size, "FFN(u) = W2(silu(W1 u) · W3 u)")
    x = w.array("x", B, T, d)
    w.add("add to the residual stream", "x = x + ffn(u)", x, backward="the gradient goes both ways", factor=0)


def _mla(w: _Walk, T: int) -> None:
    c, B, H = w.c, w.B, w.c.num_attention_heads
    d_c, d_r, N = c.kv_lora_rank, c.qk_rope_head_dim, w.B * T
    q = w.array("q", B, T, H, c.qk_head_dim)
    if c.q_lora_rank is None:
        w.linear("queries", "7, 8 (no query latent)", w.weight("self_attn.q_proj.weight"), q, N)
    else:
        c_q = w.array("c_q", B, T, c.q_lora_rank)
        w.linear("query latent", "6", w.weight("self_attn.q_a_proj.weight"), c_q, N)
        w.norm("norm of the query latent", "self_attn.q_a_layernorm.weight", "c_q_norm", B, T, c.q_lora_rank)
        w.linear("queries, content and position", "7, 8, 9", w.weight("self_attn.q_b_proj.weight"), q, N)
    both = w.array("c_kv, k_rope", B, T, d_c + d_r)
    w.linear("key-value latent and shared RoPE key", "1, 3", w.weight("self_attn.kv_a_proj_with_mqa.weight"), both, N)
    w.norm("norm of the key-value latent", "self_attn.kv_a_layernorm.weight", "c_kv_norm", B, T, d_c)
    k_rope = w.array("k_rope", B, T, d_r)
    cached, back = [w.array("c_kv_norm", B, T, d_c), k_rope], "rotate the gradients back; dk_rope is summed over heads"
    w.add("rotate q_rope and k_rope", "3, 8", k_rope, cached=cached, backward=back, factor=0)
    kv = w.array("k_nope, v", B, T, H, c.qk_nope_head_dim + c.v_head_dim)
    w.linear("keys and values of all heads", "2, 4, 5", w.weight("self_attn.kv_b_proj.weight"), kv, N)
    _attend(w, T, H)


def _plain_attention(w: _Walk, T: int) -> None:
    """MHA, GQA, MQA: keys and values straight from the hidden state, all of them cached."""
    c, B, H, G, N = w.c, w.B, w.c.num_attention_heads, w.c.kv_heads, w.B * T
    k, v = w.array("k", B, T, G, c.qk_head_dim), w.array("v", B, T, G, c.v_head_dim)
    w.linear("queries", "q = W^Q x", w.weight("self_attn.q_proj.weight"), w.array("q", B, T, H, c.qk_head_dim), N)
    w.linear("keys", "k = W^K x", w.weight("self_attn.k_proj.weight"), k, N)
    w.linear("values", "v = W^V x", w.weight("self_attn.v_proj.weight"), v, N, cached=(v,))
    w.add("rotate q and k", "RoPE", k, cached=[k], backward="rotate the gradients back", factor=0)
    _attend(w, T, G)


def _attend(w: _Walk, T: int, kv_heads: int) -> None:
    """Scores, softmax and weighted values, then W^O. Stored: q, k, v and the probabilities; recomputed: only row sums."""
    c, B, H = w.c, w.B, w.c.num_attention_heads
    o = w.array("o", B, T, H, c.v_head_dim)
    kept = [
        w.stored("q", B, T, H, c.qk_head_dim),
        w.stored("k", B, T, kv_heads, c.qk_head_dim),
        w.stored("v", B, T, kv_heads, c.v_head_dim),
        w.stored("p", B, H, T, T),
        Kept(w.array("log-sum-exp of scores", B, H, T), "recomputed"),
        o,
    ]
    flops = 2 * H * (c.qk_head_dim + c.v_head_dim) * B * T * T // 2
    back = "dv = pᵀdo, dp = do vᵀ, dz = p(dp − Σ p dp), dq = σ dz k, dk = σ dzᵀq"
    w.add("causal attention", "10", o, flops=flops, kept=kept, backward=back)
    x = w.array("x", B, T, c.hidden_size)
    w.linear("output projection, added to x", "11", w.weight("self_attn.o_proj.weight"), x, B * T)


def _swiglu(w: _Walk, title: str, prefix: str, rows: int, width: int, equation: str) -> None:
    """Two products in, one out, on ``rows`` vectors; keeps both inner ones, and what follows from them unless recomputed."""
    d = w.c.hidden_size
    matrices = [w.weight(f"{prefix}.{name}_proj.weight") for name in ("gate", "up", "down")]
    tag = f"{prefix.removeprefix('mlp.')} " if "." in prefix else ""
    kept = [w.array(f"{tag}{part}", rows, width) for part in ("gate", "up")]
    kept += [w.stored(f"{tag}{part}", rows, width) for part in ("sigmoid(gate)", "silu(gate)·up")]
    if prefix == "mlp.experts":
        kept.insert(0, w.array("dispatched u", rows, d))
        kept.append(w.array("experts out", rows, d))  # the gates' gradient needs what each expert said
    back = "da = dy W2; dgate = da·up·silu′(gate), dup = da·silu(gate); three dW"
    w.add(title, equation, w.array(f"{tag}y", rows, d), matrices, 2 * rows * 3 * width * d, kept, backward=back)


def _experts(w: _Walk, T: int) -> None:
    c, B, E, K = w.c, w.B, w.c.n_routed_experts, w.c.num_experts_per_tok
    N = B * T
    s, gates = w.array("s", N, E), w.array("g", N, K)
    w.linear("affinity of every expert", "15", w.weight("mlp.gate.weight"), s, N, kept=[s])
    bias = [w.weight("mlp.gate.e_score_correction_bias")] if c.topk_method == "noaux_tc" else []
    equation, kept = "13, 16" if bias else "13, 14", [w.array("chosen", N, K), gates]
    back = "only chosen scores get a gradient; the bias none: it moves after the step"
    w.add("choose experts and weigh them", equation, gates, bias, kept=kept, backward=back, factor=0)
    if c.balance != "none" and c.aux_loss_alpha:
        kept = [w.array("s / Σ s", N, E), w.array("f", B, E)]
        back = "into all scores through P; f is constant"
        w.add("balance loss", "17-20", w.array("L_bal"), kept=kept, backward=back, factor=0)
    routed = "Σ_i g_i FFN_i(u), eq. 12"
    _swiglu(w, f"{K} of {E} routed experts", "mlp.experts", N * K, c.moe_intermediate_size, routed)
    if c.n_shared_experts:
        width = c.n_shared_experts * c.moe_intermediate_size
        _swiglu(w, "shared experts", "mlp.shared_experts", N, width, "Σ FFN_s(u), eq. 12")


def _head(w: _Walk, head: Tensor, name: str, time: int, equation: str) -> None:
    B, vocab = w.B, head.shape[0]
    logits = w.array(name, B, time, vocab)
    w.linear("output head", "logits = W h", head, logits, B * time)
    w.add("loss", equation, w.array("loss"), kept=[logits], backward="dlogits = (softmax − one-hot) / tokens", factor=0)


def _mtp(w: _Walk, depth: int, head: Tensor) -> None:
    """Module ``depth`` sees T − depth positions: the hidden state of each and the embedding of the token ``depth`` later."""
    c, B, d = w.c, w.B, w.c.hidden_size
    layer, time = c.num_hidden_layers + depth - 1, max(w.T - depth, 0)
    w.enter(f"MTP module {depth}", layer)
    w.norm("norm of the later token's embedding", "enorm.weight", "e_norm", B, time, d, equation="21", feeds=False)
    w.norm("norm of the hidden state", "hnorm.weight", "h_norm", B, time, d, equation="21", feeds=False)
    weight, pair = w.weight("eh_proj.weight"), w.stored("e_norm ; h_norm", B, time, 2 * d)
    w.linear("project the pair", "21", weight, w.array("x", B, time, d), B * time, [pair])
    _block(w, time)
    w.norm("norm before the shared head", "shared_head.norm.weight", "h", B, time, d)
    _head(w, head, "logits", time, f"24, 25 (token i + {depth + 1})")
