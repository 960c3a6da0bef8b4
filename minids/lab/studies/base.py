"""The model that most studies change one thing of: V3's mechanisms in 0.32 million parameters, ten seconds a run on a core."""

from minids.config import ModelConfig, TrainConfig
from minids.lab.analysis.routing import load_entropy
from minids.lab.studies.study import Job
from minids.lab.studies.training import Curves, Validation, text, train, validate
from minids.model import DeepSeekV3
from minids.training.metrics import max_violation

MODEL = dict(
    vocab_size=258, hidden_size=64, num_hidden_layers=3, first_k_dense_replace=1, max_position_embeddings=128,
    num_attention_heads=4, q_lora_rank=32, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
    intermediate_size=192, moe_intermediate_size=32, n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=4,
    n_group=4, topk_group=2, routed_scaling_factor=2.5, num_nextn_predict_layers=0, initializer_range=0.02,
    bos_token_id=256, eos_token_id=257,
)  # fmt: skip
"""One dense block and two with 16 experts, of which a token uses 4 in 2 of 4 groups, beside a shared one."""

TRAIN = dict(batch_size=8, context_length=128, learning_rate=3e-3, warmup_steps=30, eval_tokens=16384)
"""1,024 bytes a step; validation on the same 16,384 bytes of each domain."""

BALANCED = dict(balance="bias", bias_update_speed=0.003, aux_loss_alpha=0.0001)
"""V3's balancing with the speed that ``minids study balance`` found for this size; the studies of other things use it."""

COMMON = {"model": MODEL, "train": TRAIN}


def configs(settings: dict, job: Job, common: dict = COMMON) -> tuple[ModelConfig, TrainConfig]:
    """What an arm trains: the base with the arm's own ``{"model": …, "train": …}`` on top."""
    model = ModelConfig(**common["model"]).replace(**settings.get("model", {}))
    run = TrainConfig(**common["train"]).replace(**settings.get("train", {}), steps=job.steps)
    return model, run


def trained(settings: dict, job: Job, common: dict = COMMON) -> tuple[DeepSeekV3, dict, Validation, dict[str, list[float]]]:
    """Train an arm: the model, the numbers that every study shows, what validation found, and the curves."""
    model_config, train_config = configs(settings, job, common)
    corpus, curves = text(job.data), Curves(job.steps)

    def on_step(step, losses, model):
        curves.add(step, loss=losses.main, max_vio=float(max_violation(losses.counts).mean()))
        job.tell(1)

    model = train(model_config, train_config, corpus, job.seed, on_step, threads=job.threads)
    found = validate(model, corpus, train_config)
    numbers = {
        "loss": found.mean_loss,
        **{f"loss_{domain}": loss for domain, loss in found.loss.items()},
        "max_vio": float(max_violation(found.counts).mean()),
        "max_vio_batch": curves.values["max_vio"][-1],
        "entropy": float(load_entropy(found.counts).mean()),
        "parameters": model.parameters.values.size,
    }
    return model, numbers, found, curves.values
