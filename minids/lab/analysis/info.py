"""Everything the arithmetic says about one configuration, as nested data.

A leaf is a number with its unit, the formula it comes from and where that formula is stated; the symbols of the formulas are
the leaves of the first section:

    {"value": 70272, "unit": "bytes", "formula": "L · elements per layer · bits / 8", "source": "DeepSeek-V2 report, Table 1"}

``info_table.format_info`` prints exactly these leaves.
"""

from __future__ import annotations

from minids.config import ModelConfig
from minids.errors import refuse
from minids.lab.analysis import flops, kv_cache, memory, parameters, released_weights
from minids.layers.positions import softmax_scale

Leaf = dict[str, object]
Number = int | float | str

V2_TABLE_1 = "DeepSeek-V2 report, Table 1"
V3_MTP = "DeepSeek-V3 report, section 2.2; tensor names from the repository's README_WEIGHTS"
V2_PARAMETERS = "DeepSeek-V2 report, appendix C; DeepSeek-V3 report, section 2.1"
SIX_N = "ISCA 2025 paper (arXiv 2505.09343), Table 2: the convention that gives its 250 GFLOP for V3"
ARITHMETIC = "arithmetic"
FORMS = {"fp32": "FP32", "bf16": "BF16", "fp8": "FP8", "6-bit": "6 bits"}


def _leaf(value: Number, unit: str, formula: str, source: str) -> Leaf:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return {"value": value, "unit": unit, "formula": formula, "source": source}


def info(config: ModelConfig, name: str, context: int | None = None, batch: int = 1) -> dict:
    """All numbers of one configuration, ready for JSON.

    ``context`` is the sequence length for everything that depends on one, by default 4096 or the model's longest if shorter;
    ``batch`` the number of sequences trained or served at once. Raises ``MinidsError`` where one of them is not above 0.
    """
    if context is None:
        context = flops.usual_context(config)
    for field, value in (("context", context), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise refuse(field, value, "must be a whole number of at least 1")
    return {
        "name": name,
        "context": context,
        "batch": batch,
        "symbols": _symbols(config, context),
        "parameters": _parameters(config),
        "parameters by part": _parts(config),
        "cache per token and layer": _cache_per_layer(config),
        "cache": _cache(config, context, batch),
        "FLOPs per token": _flops(config, context),
        "FLOPs to decode one token": _decode(config, context),
        "arithmetic intensity": _intensity(config, context, batch),
        "memory to train": _training_memory(config, context, batch),
        "memory to serve": _serving_memory(config, context, batch),
        "position": _position(config),
    }


def _symbols(c: ModelConfig, context: int) -> dict[str, Leaf]:
    """The letters of the formulas and their values, labelled with the configuration's field."""
    dense = min(c.first_k_dense_replace, c.num_hidden_layers)
    table = {
        "L = num_hidden_layers": c.num_hidden_layers,
        "L_dense = first_k_dense_replace": dense,
        "L_moe = L − L_dense": c.num_hidden_layers - dense,
        "d = hidden_size": c.hidden_size,
        "V = vocab_size": c.vocab_size,
        "n_h = H = num_attention_heads": c.num_attention_heads,
        "n_kv = H_kv, key-value heads": c.kv_heads,
        "d_c = kv_lora_rank": c.kv_lora_rank,
        "d_c' = q_lora_rank": c.q_lora_rank,
        "d_nope = qk_nope_head_dim": c.qk_nope_head_dim,
        "d_r = qk_rope_head_dim": c.qk_rope_head_dim,
        "d_qk = d_nope + d_r": c.qk_head_dim,
        "d_v = v_head_dim": c.v_head_dim,
        "I = intermediate_size": c.intermediate_size,
        "I_m = moe_intermediate_size": c.moe_intermediate_size,
        "E = n_routed_experts": c.n_routed_experts,
        "K = num_experts_per_tok": c.num_experts_per_tok,
        "N_s = n_shared_experts": c.n_shared_experts,
        "D = num_nextn_predict_layers": c.num_nextn_predict_layers,
        "T = context": context,
    }
    return {
        label: _leaf(value, "", "a field of the configuration, or made of such", "config.json of the model")
        for label, value in table.items()
        if value is not None
    }


def _parameters(c: ModelConfig) -> dict[str, Leaf]:
    unit = "parameters"
    rows = {
        "total": _leaf(parameters.total(c), unit, "sum of the parts below without MTP", V2_PARAMETERS),
        "activated, both embeddings": _leaf(
            parameters.activated(c, "both"), unit, "K of E experts; embedding V·d and head V·d counted", V2_PARAMETERS
        ),
        "activated, head only": _leaf(
            parameters.activated(c, "head"), unit, "the same without the input embedding, a look-up", V2_PARAMETERS
        ),
        "activated, neither": _leaf(
            parameters.activated(c, "neither"), unit, "the same without embedding and head", "Moonlight report, Table 1"
        ),
    }
    if c.num_nextn_predict_layers:
        rows["MTP modules, extra"] = _leaf(parameters.mtp_total(c), unit, "D·(block + 2d·d + 3d), not in the total", V3_MTP)
        rows["MTP modules, activated"] = _leaf(
            parameters.mtp_activated(c), unit, "the same with K of E experts, shared head and embedding not counted", V3_MTP
        )
    rows["size in FP8 as V3 is released"] = _leaf(
        released_weights.bytes_as_released(c),
        "bytes",
        "E4M3 matrices, a float32 scale per 128 × 128 of them, the rest BF16; with MTP and its copies of V·d",
        "DeepSeek-V3 repository, README_WEIGHTS",
    )
    return rows


def _parts(c: ModelConfig) -> dict[str, Leaf]:
    rows = {}
    for part in parameters.parts(c):
        source = V3_MTP if part.name.startswith("MTP") else V2_PARAMETERS
        rows[part.name] = _leaf(part.total, "parameters", part.formula, source)
        if part.activated != part.total:
            rows[f"{part.name}, activated"] = _leaf(part.activated, "parameters", part.formula, source)
    return rows


def _cache_per_layer(c: ModelConfig) -> dict[str, Leaf]:
    formulas = {
        "mha": "n_h · (d_nope + d_v)",
        "gqa": "n_g · (d_nope + d_v)",
        "mqa": "d_nope + d_v",
        "mla": "d_c + d_r",
    }
    rows = {}
    for kind, elements in kv_cache.by_kind(c).items():
        label = kind.upper()
        if kind == "gqa":
            label += f", {elements // kv_cache.mqa_elements(c)} groups"
        rows[label] = _leaf(elements, "elements", formulas[kind], V2_TABLE_1)
        for form in kv_cache.BITS:
            rows[f"{label}, {FORMS[form]}"] = _leaf(
                kv_cache.bytes_of(elements, form), "bytes", "elements · bits / 8", V2_TABLE_1
            )
    rows["this configuration"] = _leaf(
        kv_cache.elements(c),
        "elements",
        "d_c + d_r" if c.attention == "mla" else "n_kv · ((d_nope + d_r) + d_v): the RoPE part of each key too",
        V2_TABLE_1,
    )
    if c.attention == "mla":
        rows["expanded (naive mode)"] = _leaf(
            kv_cache.full_elements(c),
            "elements",
            "n_h · ((d_nope + d_r) + d_v)",
            "DeepSeek-V3 repository, inference/model.py",
        )
        rows["as many as GQA with"] = _leaf(
            kv_cache.gqa_equivalent_groups(c),
            "groups",
            "(d_c + d_r) / (d_nope + d_v)",
            "DeepSeek-V2 report, section 2.1.4",
        )
        rows["FlashMLA's FP8 format"] = _leaf(
            kv_cache.flashmla_fp8_bytes(c), "bytes", "d_c + 4·ceil(d_c/128) + 2·d_r", "FlashMLA repository, README"
        )
    return rows


def _cache(c: ModelConfig, context: int, batch: int) -> dict[str, Leaf]:
    rows = {}
    per_token = c.num_hidden_layers * kv_cache.elements(c)
    rows["per token"] = _leaf(per_token, "elements", "L · elements of this configuration per layer", V2_TABLE_1)
    for form in kv_cache.BITS:
        size = kv_cache.bytes_per_token(c, form)
        rows[f"per token, {FORMS[form]}"] = _leaf(size, "bytes", "elements per token · bits / 8", V2_TABLE_1)
    for form in kv_cache.BITS:
        size = kv_cache.cache_bytes(c, context, batch, form)
        rows[f"{batch} × {context} tokens, {FORMS[form]}"] = _leaf(
            size, "bytes", "batch · T · elements per token · bits / 8", V2_TABLE_1
        )
    return rows


def _flops(c: ModelConfig, context: int) -> dict[str, Leaf]:
    attention = "n_h(d_qk + d_v)"
    rows = {
        "forward, causal": _leaf(flops.forward(c, context), "FLOP", f"2·N + 2·{attention}·(T/2)·L, N: head only", SIX_N),
        "of it attention": _leaf(flops.attention_forward(c, context), "FLOP", f"2·{attention}·(T/2)·L", SIX_N),
        "training, causal": _leaf(flops.training(c, context), "FLOP", f"3 × forward = 6·N + 6·{attention}·(T/2)·L", SIX_N),
        "training, not causal": _leaf(
            flops.training(c, context, causal=False),
            "FLOP",
            f"6·N + 6·{attention}·T·L",
            "ISCA 2025 paper (arXiv 2505.09343), Table 4",
        ),
    }
    if c.num_nextn_predict_layers:
        rows["training, MTP on top"] = _leaf(
            flops.mtp_training(c, context),
            "FLOP",
            "Σ_k (T − k)/T · (6·(N_mtp + V·d) + causal attention of a layer)",
            "DeepSeek-V3 report, section 2.2",
        )
    return rows


def _decode(c: ModelConfig, context: int) -> dict[str, Leaf]:
    source = "DeepSeek-V2 report, section 2.1.2; DeepSeek-V3 repository, inference/model.py"
    formulas = {
        "absorbed": "2·N + 2·n_h(2·d_c + d_r)·T·L",
        "full cache": "2·N + 2·n_h(d_qk + d_v)·T·L",
        "re-expand": "full cache + 2·d_c·n_h(d_nope + d_v)·(T − 1)·L",
        "no cache": "T · forward over T tokens",
    }
    modes = flops.DECODE_MODES if c.attention == "mla" else ("full cache", "no cache")
    rows = {mode: _leaf(flops.decode(c, context, mode).flops, "FLOP", formulas[mode], source) for mode in modes}
    if c.attention == "mla" and flops.absorption_pays_until(c) < float("inf"):
        rows["absorption pays below"] = _leaf(
            flops.absorption_pays_until(c),
            "new tokens at once",
            "d_c(d_nope + d_v)/(2·d_c − d_nope − d_v)",
            ARITHMETIC,
        )
    return rows


def _intensity(c: ModelConfig, context: int, batch: int) -> dict[str, Leaf]:
    rows = {
        "attention, BF16 cache": _leaf(
            flops.attention_intensity(c),
            "FLOP/byte",
            "FLOPs per query-key pair / bytes of a cached token and layer",
            ARITHMETIC,
        )
    }
    for size in sorted({1, 8, 64, 512, batch}):
        step = flops.decode_intensity(c, context, size)
        formula = "batch · FLOPs / (FP8 weights in use, E(1 − (1 − K/E)^batch) experts a layer, + BF16 caches)"
        rows[f"decoding, batch {size}"] = _leaf(step.flops_per_byte, "FLOP/byte", formula, ARITHMETIC)
    return rows


def _training_memory(c: ModelConfig, context: int, batch: int) -> dict[str, Leaf]:
    rows = {}
    for storage in (memory.FP32, memory.V3):
        used = memory.training_memory(c, batch, context, storage)
        formulas = {
            "weights": f"{storage.weight:g} bytes · parameters with MTP",
            "gradients": f"{storage.gradient:g} bytes · parameters with MTP",
            "moments": f"{storage.moments:g} bytes · parameters with MTP (AdamW)",
            "activations": f"{storage.activation:g} bytes · Σ saved elements, {storage.keeps} (the tour lists them)",
            "total": "sum of the four, on one machine",
        }
        for part, formula in formulas.items():
            rows[f"{storage.name}: {part}"] = _leaf(getattr(used, part), "bytes", formula, storage.source)
    return rows


def _serving_memory(c: ModelConfig, context: int, batch: int) -> dict[str, Leaf]:
    rows = {}
    for label, width in (("FP8", 1), ("BF16", 2), ("FP32", 4)):
        used = memory.serving_memory(c, context, batch, width)
        rows[f"{label} weights"] = _leaf(used.weights, "bytes", f"total · {width} bytes, scales not counted", ARITHMETIC)
        rows[f"{label} weights, BF16 cache"] = _leaf(used.total, "bytes", "weights + batch · T · cache per token", ARITHMETIC)
    return rows


def _position(c: ModelConfig) -> dict[str, Leaf]:
    source = "DeepSeek-V3 repository, inference/model.py"
    formula = "(d_nope + d_r)^-1/2"
    if c.rope_scaling is not None:
        formula += " · (0.1 · mscale_all_dim · ln s + 1)²"
    return {"softmax scale": _leaf(softmax_scale(c), "", formula, source)}
