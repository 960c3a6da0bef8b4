"""What ``minids bench`` measures: two models of the kind that a laptop trains, and the batches they are given."""

from typing import NamedTuple

import numpy as np

from minids.config import ModelConfig
from minids.layers.parameters import Array

A = ModelConfig(
    vocab_size=65, hidden_size=128, num_hidden_layers=4, max_position_embeddings=512, bos_token_id=None, eos_token_id=None,
    num_attention_heads=4, q_lora_rank=64, kv_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32,
    first_k_dense_replace=1, intermediate_size=384, moe_intermediate_size=64, n_routed_experts=16, n_shared_experts=1,
    num_experts_per_tok=4, n_group=4, topk_group=2, routed_scaling_factor=2.5, num_nextn_predict_layers=0,
    aux_loss_alpha=0.0,  # the peer has no balance loss
)  # fmt: skip
"""1,629,952 parameters; the vocabulary is that of the characters of tiny Shakespeare."""

B = A.replace(
    vocab_size=512, hidden_size=256, num_hidden_layers=6, num_attention_heads=8, q_lora_rank=128, kv_lora_rank=64,
    intermediate_size=1024, moe_intermediate_size=128, n_routed_experts=32,
)  # fmt: skip
"""18,518,400 parameters."""


class Size(NamedTuple):
    """A model and its batch."""

    config: ModelConfig
    batch: int  # B
    length: int  # T

    @property
    def tokens(self) -> int:
        """Per step."""
        return self.batch * self.length

    def sequences(self, seed: int = 0) -> tuple[Array, Array]:
        """Random tokens and the targets one later, (B, T) each. What they are does not matter to the speed."""
        text = np.random.default_rng(seed).integers(0, self.config.vocab_size, (self.batch, self.length + 1))
        return text[:, :-1], text[:, 1:]


SIZES = {"A-12x64": Size(A, 12, 64), "A-16x256": Size(A, 16, 256), "B-16x256": Size(B, 16, 256)}
