"""The maths of DeepSeek-V3, one module per operation, in plain NumPy.

``forward`` returns the result and what ``backward`` needs to turn its gradient into those of the inputs, in their order.
No state, no configuration, no layers. ``minids/kernels`` holds compiled twins.

    in the paper                            here
    -----------------------------------     ------------------------------------------------
    embedding, output head                  embedding, linear, cross_entropy
    RMSNorm                                 rmsnorm
    RoPE, YaRN                              rope, yarn
    concatenations (eqs 4, 9)               query_heads, key_heads
    attention (eq. 10), its largest logits  attention, largest_logit
    feed-forward network, experts           swiglu, grouped_feed_forward
    routed experts (eq. 12)                 dispatch, combine, routed_experts
    gating (eqs 12-16), node limit          router
    bias against imbalance (section 2.1.2)  bias_update
    balance loss (eqs 17-20)                balance_loss
    multi-token prediction (eq. 21)         mtp_combine
    GRPO (eqs 26-28), distillation          policy_loss, distillation
    reward model (section 5.2.1)            preference_loss
    FP8 formats, tiles (sections 3.3.2-3)    float8, bfloat16, quantise
    FP8 products, their sums (section 3.3)  fp8_linear, fp8_feed_forward, fp8_accumulation
    what FP8 is compared with (section 3.3)  bf16_arithmetic, delayed

One alphabet of shapes throughout: B batch, T time, N = B·T tokens, H heads, E experts, K chosen experts, V vocabulary;
d model width, d_c KV latent, d_c' query latent, d_r RoPE size, d_h head size.
"""

# Listed for editors and type checkers, to whom `minids.backend.op` is this package.
from minids.ops import (  # noqa: F401, I001
    adamw, attention, balance_loss, bf16_arithmetic, bfloat16, bias_update, combine, cross_entropy, delayed, dispatch,
    distillation, embedding, float8, fp8_accumulation, fp8_feed_forward, fp8_linear, grouped_feed_forward, key_heads,
    largest_logit, linear, mtp_combine, muon, policy_loss, preference_loss, quantise, query_heads, rmsnorm, rope,
    routed_experts, router, sigmoid, swiglu, yarn,
)  # fmt: skip
