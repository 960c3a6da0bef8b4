"""DeepSeekMoE: a few shared experts that see every token, and many small ones that a router chooses from.

DeepSeek-V3 section 2.1.2, eqs 12-20. For the normalised input u of a token,

    y = Σ_shared FFN^(s)(u) + Σ_{i chosen} g_i FFN^(r)_i(u)

The block adds the residual of eq. 12. The shared experts are one network of N_s times the width, which is the same sum.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

from minids.backend import op
from minids.config import ModelConfig
from minids.errors import refuse
from minids.layers.basic import Linear, SavedLinear
from minids.layers.feed_forward import SavedFeedForward
from minids.layers.fp8 import arithmetic_of, feed_forward, scheme_of
from minids.layers.parameters import Array, Parameters
from minids.layers.put_off import waiting
from minids.layers.recompute import (
    experts_again,
    experts_without,
    feed_forward_again,
    feed_forward_without,
    with_input,
    without_input,
)

# In full precision and in this process; with an exchange; in FP8.
SavedExperts: TypeAlias = "op.routed_experts.Saved | op.grouped_feed_forward.Saved | op.fp8_feed_forward.Saved"


class Saved(NamedTuple):
    logits: SavedLinear
    router: op.router.Saved
    routing: op.router.Routing
    plan: op.dispatch.Plan
    experts: SavedExperts
    combine: op.combine.Saved | None  # of FP8; otherwise with the experts, or the exchange
    shared: SavedFeedForward | None  # None without shared experts
    balance: op.balance_loss.Saved | None  # None without a balance loss
    balance_loss: float  # α · L, eq. 17
    exchange: Any = None  # what an exchange saved


class Exchange(Protocol):
    """Experts that are not all in this process: tokens travel to them, and their sums back (``minids/parallel``)."""

    def forward(
        self, layer: MoE, tokens: Array, chosen: Array, gates: Array, meanwhile: Callable[[], None]
    ) -> tuple[Array, SavedExperts, Any]:
        """tokens (N, d), chosen and gates (N, K) → Σ_k g_k FFN_k(token), (N, d), and what the backward pass needs.
        ``meanwhile`` is called once, while tokens travel."""

    def backward(
        self, layer: MoE, dy: Array, experts: SavedExperts, saved: Any, meanwhile: Callable[[], None]
    ) -> tuple[Array, Array]:
        """dy (N, d) → d_tokens (N, d), d_gates (N, K); adds the gradients of the experts that are here."""

    def idle(self, layer: MoE) -> Callable[[], None]:
        """Serve others' tokens in a forward pass that has none here; what is returned does so in the backward pass."""


class MoE:
    """x (B, T, d) → y (B, T, d)."""

    def __init__(self, config: ModelConfig, parameters: Parameters, name: str):
        d, width, experts = config.hidden_size, config.moe_intermediate_size, config.n_routed_experts
        self.config = config
        self.name = name
        self.gate = Linear(parameters, f"{name}.gate", experts, d)
        self.w_gate = parameters.add(f"{name}.experts.gate_proj.weight", (experts, width, d))
        self.w_up = parameters.add(f"{name}.experts.up_proj.weight", (experts, width, d))
        self.w_down = parameters.add(f"{name}.experts.down_proj.weight", (experts, d, width))
        self.shared = None
        if config.n_shared_experts:
            self.shared = feed_forward(config, parameters, f"{name}.shared_experts", config.n_shared_experts * width)
        scheme = scheme_of(config, parameters, f"{name}.experts")
        self.by = arithmetic_of(config)
        self.scheme = None if scheme is None else op.fp8_feed_forward.dispatched(scheme)
        self._buffers = parameters.buffers
        self._bias_name = f"{name}.gate.e_score_correction_bias"
        if config.topk_method == "noaux_tc":
            parameters.add_buffer(self._bias_name, (experts,))
        self.alpha = 0.0 if config.balance == "none" else config.aux_loss_alpha
        self.on_routing: Callable[[op.router.Routing, tuple[int, int]], None] | None = None  # a recorder's, with (B, T)
        self.exchange: Exchange | None = None  # where the weights here are those of some experts only
        self.fixed_choice: Array | None = None  # (N, K) experts to take instead of choosing: see model.routing_fixed

    @property
    def bias(self) -> Array | None:
        """b, the balancing bias, (E,) float32; None for the routers of V2, which have none."""
        return self._buffers.get(self._bias_name)

    def forward(self, x: Array) -> tuple[Array, Saved]:
        chosen = self.fixed_choice
        tokens = x.reshape(-1, x.shape[-1])  # (N, d)
        if chosen is not None and len(chosen) != len(tokens):
            raise refuse("chosen", f"experts of {len(chosen)} tokens", f"{self.name} is given {len(tokens)} tokens")
        routing, saved_logits, saved_router = self.route(tokens, chosen)
        if self.on_routing:
            self.on_routing(routing, x.shape[:2])
        plan = op.dispatch.plan(routing.chosen, self.config.n_routed_experts)
        from_shared = saved_shared = saved_combine = saved_exchange = None

        def shared() -> None:
            nonlocal from_shared, saved_shared
            if self.shared:
                from_shared, saved_shared = self.shared.forward(tokens)

        if self.exchange is not None:
            y, saved_experts, saved_exchange = self.exchange.forward(self, tokens, routing.chosen, routing.gates, shared)
            if from_shared is not None:
                y += from_shared
        elif self.scheme is None:
            shared()
            weights = self.w_gate.value, self.w_up.value, self.w_down.value
            y, saved_experts = op.routed_experts.forward(tokens, routing.gates, plan, *weights, onto=from_shared)  # (N, d)
        else:
            shared()
            rows, _ = op.dispatch.forward(tokens, plan)  # (N·K, d), sorted by expert
            rows, saved_experts = self.experts(rows, plan.starts)
            y, saved_combine = op.combine.forward(rows, routing.gates, plan)  # (N, d)
            if from_shared is not None:
                y += from_shared
        loss, balance = self._balance_loss(routing, x.shape[1])
        saved = (saved_logits, saved_router, routing, plan, saved_experts, saved_combine, saved_shared, balance, loss)
        return y.reshape(x.shape), Saved(*saved, saved_exchange)

    def route(self, tokens: Array, chosen: Array | None = None) -> tuple[op.router.Routing, SavedLinear, op.router.Saved]:
        """tokens (N, d) → their experts and gates, eqs 13-16; ``chosen`` (N, K) prescribes the experts."""
        c = self.config
        logits, saved_logits = self.gate.forward(tokens)  # (N, E)
        groups, names = (c.num_experts_per_tok, c.n_group, c.topk_group), (c.scoring_func, c.topk_method)
        gating = (c.norm_topk_prob, c.routed_scaling_factor)
        routing, saved_router = op.router.forward(logits, self.bias, *groups, *names, *gating, chosen)
        return routing, saved_logits, saved_router

    def backward(self, dy: Array, saved: Saved, loss_weight: float = 1.0) -> Array:
        """``loss_weight``: dL/d(balance loss), which joins the gradient here."""
        flat = dy.reshape(-1, dy.shape[-1])  # (N, d)
        d_from_shared = None

        def shared() -> None:
            nonlocal d_from_shared
            if self.shared and saved.shared is not None:
                d_from_shared = self.shared.backward(flat, saved.shared)

        if saved.exchange is not None:
            assert self.exchange is not None
            dx, d_gates = self.exchange.backward(self, flat, saved.experts, saved.exchange, shared)
            if d_from_shared is not None:
                dx += d_from_shared
        elif saved.combine is None:
            shared()
            dx, d_gates = self._routed_backward(flat, saved.experts, d_from_shared)
        else:
            shared()
            d_rows, d_gates = op.combine.backward(flat, saved.combine)
            d_rows = self.experts_backward(d_rows, saved.experts)
            dx = op.dispatch.backward(d_rows, saved.plan)
            if d_from_shared is not None:
                dx += d_from_shared
        d_scores = None
        if saved.balance is not None:
            d_scores = op.balance_loss.backward(self.alpha * loss_weight, saved.balance)  # (N, E)
        d_logits = op.router.backward(d_gates, d_scores, saved.router)
        dx += self.gate.backward(d_logits, saved.logits)
        return dx.reshape(dy.shape)

    def without(self, saved: Saved) -> Saved:
        """What is kept where the rest is formed again: see ``recompute``."""
        shared = saved.shared and feed_forward_without(saved.shared)
        return saved._replace(logits=without_input(saved.logits), experts=experts_without(saved.experts), shared=shared)

    def formed_again(self, saved: Saved, x: Array) -> Saved:
        """What ``forward`` saved; x (B, T, d) as it was given."""
        tokens = x.reshape(-1, x.shape[-1])
        shared = saved.shared and feed_forward_again(saved.shared, tokens)
        return saved._replace(logits=with_input(saved.logits, tokens), experts=experts_again(saved.experts), shared=shared)

    def update_bias(self, counts: Array, speed: float) -> None:
        """One step of the balancing bias, from the tokens each expert got in the whole global batch, (E,)."""
        bias = self._buffers[self._bias_name]
        bias[...] = op.bias_update.updated(bias, counts, speed, self.config.bias_update_rule)

    def experts(self, rows: Array, starts: Array, held: Array | None = None) -> tuple[Array, SavedExperts]:
        """rows (N·K, d) sorted by expert → each through its own expert's network. ``held`` (places,): rows are sorted by place
        instead, and this is the expert that each place holds."""
        weights = self.w_gate.value, self.w_up.value, self.w_down.value
        if held is not None:
            weights = weights[0][held], weights[1][held], weights[2][held]
        if self.scheme is None:
            return op.grouped_feed_forward.forward(rows, starts, *weights)
        w_gate, w_up, w_down = weights
        return op.fp8_feed_forward.forward(rows, starts, w_gate, w_up, w_down, self.scheme, **self.by)

    def experts_backward(self, d_rows: Array, saved: SavedExperts) -> Array:
        """d_rows (N·K, d) of the experts' outputs → of their inputs."""
        totals = self.w_gate.grad, self.w_up.grad, self.w_down.grad
        if not isinstance(saved, op.fp8_feed_forward.Saved):
            assert not isinstance(saved, op.routed_experts.Saved)
            if (later := waiting()) is not None:
                d_rows, for_weights = op.grouped_feed_forward.backward_input(d_rows, saved)
                later.append(partial(op.grouped_feed_forward.backward_weights_into, for_weights, *totals))
                return d_rows
            return op.grouped_feed_forward.backward_into(d_rows, saved, *totals)
        d_rows, *d_weights = op.fp8_feed_forward.backward(d_rows, saved, **self.by)
        for total, gradient in zip(totals, d_weights, strict=True):
            total += gradient
        return d_rows

    def _routed_backward(self, dy: Array, saved: SavedExperts, onto: Array | None) -> tuple[Array, Array]:
        """dy (N, d) → dx (N, d), added to ``onto`` if that is given, and d_gates (N, K)."""
        assert not isinstance(saved, op.fp8_feed_forward.Saved | op.grouped_feed_forward.Saved)
        totals = self.w_gate.grad, self.w_up.grad, self.w_down.grad
        if (later := waiting()) is not None:
            dx, d_gates, for_weights = op.routed_experts.backward_input(dy, saved, onto)
            later.append(partial(op.routed_experts.backward_weights_into, for_weights, *totals))
            return dx, d_gates
        return op.routed_experts.backward_into(dy, saved, *totals, onto)

    def _balance_loss(self, routing: op.router.Routing, time: int) -> tuple[float, op.balance_loss.Saved | None]:
        if not self.alpha:
            return 0.0, None
        counted = routing.chosen
        if self.config.aux_loss_counts == "unbiased":  # eq. 18 as printed: top-K of s, without bias and groups
            counted = op.router.choose(routing.scores, self.config.num_experts_per_tok)
        group = time if self.config.seq_aux else routing.scores.shape[0]
        loss, saved = op.balance_loss.forward(routing.scores, counted, group)
        return self.alpha * loss, saved
