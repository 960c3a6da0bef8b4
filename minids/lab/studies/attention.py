"""MHA, GQA, MQA and MLA with the same number of parameters: what each keeps per token, and what it costs in loss.

DeepSeek-V2 appendix D compares them at 7 and 16 billion parameters (tables 8 and 9): MQA below GQA below MHA, and MLA above all
of them with the smallest cache but MQA's. Here a shared key and value head frees parameters, which go into more query heads,
and MLA's latent is as wide as what is left allows: every attention layer has 20,480 weights.
"""

from minids.lab.analysis.kv_cache import elements
from minids.lab.studies.base import BALANCED, COMMON, configs, trained
from minids.lab.studies.compare import above, below
from minids.lab.studies.study import Finding, Job, Outcome, Study, Summary

# Weights of a layer with heads of 24 (query, key) and 16 (value): 64 · (24 H + 24 K + 16 K + 16 H) for H heads on K key heads.
ARMS = {
    "mha": dict(attention="mha", num_attention_heads=4),
    "gqa": dict(attention="gqa", num_attention_heads=6, num_key_value_heads=2),
    "mqa": dict(attention="mqa", num_attention_heads=7),
    "mla": dict(attention="mla", num_attention_heads=6, q_lora_rank=32, kv_lora_rank=28),
}


def run(settings: dict, job: Job) -> Outcome:
    model, numbers, _, curves = trained(settings, job)
    config, _ = configs(settings, job)
    numbers["cache"] = elements(config)  # per token and layer
    attention = [p.value.size for p in model.parameters if ".self_attn." in p.name and "norm" not in p.name]
    numbers["attention_parameters"] = sum(attention)
    return Outcome(numbers, curves)


def findings(arms: dict[str, dict[str, Summary]]) -> list[Finding]:
    loss = {name: arm["loss"] for name, arm in arms.items()}
    cache = {name: round(arm["cache"].mean) for name, arm in arms.items()}
    sizes = ", ".join(f"{name} {size}" for name, size in cache.items())
    return [
        Finding("MLA keeps the fewest numbers per token", cache["mla"] == min(cache.values()), sizes),
        below("MLA's loss is not above MHA's", loss["mla"], loss["mha"]),
        above("GQA's loss is above MHA's", loss["gqa"], loss["mha"]),
        above("MQA's loss is above GQA's", loss["mqa"], loss["gqa"]),
    ]


STUDY = Study(
    question="with the same parameters, what do attentions with smaller caches lose?",
    arms={name: {"model": {**BALANCED, **model}} for name, model in ARMS.items()},
    run=run,
    shown=("loss", "cache", "attention_parameters", "parameters"),
    common=COMMON,
    findings=findings,
    seeds=(0, 1, 2, 3, 4),
)
