"""The model that most studies change one thing of: V3's mechanisms in 0.67 million parameters, 20 seconds a run on one core."""

from __future__ import annotations

from minids.config import ModelConfig, TrainConfig
from minids.studies.study import Job

MODEL = dict(
    vocab_size=258,
    hidden_size=96,
    num_hidden_layers=3,
    first_k_dense_replace=1,
    intermediate_size=288,
    moe_intermediate_size=48,
    num_attention_heads=4,
    q_lora_rank=48,
    kv_lora_rank=24,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=16,
    n_routed_experts=16,
    n_shared_experts=1,
    num_experts_per_tok=4,
    n_group=4,
    topk_group=2,
    routed_scaling_factor=2.5,
    num_nextn_predict_layers=0,
    max_position_embeddings=128,
    initializer_range=0.02,
    bos_token_id=256,
    eos_token_id=257,
)
"""One dense block and two with 16 experts, of which a token uses 4 in 2 of 4 groups, beside a shared one."""

TRAIN = dict(batch_size=8, context_length=128, learning_rate=3e-3, warmup_steps=30, eval_tokens=16384)
"""1,024 bytes a step; validation on the same 16,384 bytes of each domain."""

COMMON = {"model": MODEL, "train": TRAIN}


def configs(settings: dict, job: Job, common: dict = COMMON) -> tuple[ModelConfig, TrainConfig]:
    """What an arm trains: the base with the arm's own ``{"model": …, "train": …}`` on top."""
    model = ModelConfig(**common["model"]).replace(**settings.get("model", {}))
    run = TrainConfig(**common["train"]).replace(**settings.get("train", {}), steps=job.steps)
    return model, run
