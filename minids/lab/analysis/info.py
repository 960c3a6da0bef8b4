"""Everything the arithmetic says about one configuration, as nested data.

A leaf is a number with its unit, the formula it comes from and where that formula is stated; the symbols of the formulas are
the leaves of the first section:

    {"value": 70272, "unit": "bytes", "formula": "L · elements per layer · bits / 8", "source": "DeepSeek-V2 report, Table 1"}

``info_table.format_info`` prints exactly these leaves.
"""

from collections.abc import Iterator

from minids.config import ModelConfig
from minids.lab.analysis import flops, kv_cache, memory, parameters, released_weights
from minids.layers.positions import softmax_scale

Leaf = dict[str, object]
Line = tuple[str, int | float, str, str, str]  # label, value, unit, formula, source

V2_TABLE_1 = "DeepSeek-V2 report, Table 1"
V3_MTP = "DeepSeek-V3 report, section 2.2; tensor names from the repository's README_WEIGHTS"
V2_PARAMETERS = "DeepSeek-V2 report, appendix C; DeepSeek-V3 report, section 2.1"
SIX_N = "ISCA 2025 paper (arXiv 2505.09343), Table 2: the convention that gives its 250 GFLOP for V3"
ISCA_4 = "ISCA 2025 paper (arXiv 2505.09343), Table 4"
CODE = "DeepSeek-V3 repository, inference/model.py"
WEIGHTS = "DeepSeek-V3 repository, README_WEIGHTS"
ARITHMETIC = "arithmetic"
FORMS = {"fp32": "FP32", "bf16": "BF16", "fp8": "FP8", "6-bit": "6 bits"}


def info(config: ModelConfig, name: str, context: int | None = None, batch: int = 1) -> dict:
    """All numbers of one configuration, ready for JSON, for ``batch`` sequences of ``context`` tokens at once.

    ``context`` is by default 4096 or the model's longest if shorter.
    """
    if context is None:
        context = flops.usual_context(config)
    flops.check_whole(context=context, batch=batch)
    sections = {
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
    found: dict = {"name": name, "context": context, "batch": batch}
    for title, lines in sections.items():
        found[title] = leaves = {}
        for label, value, unit, formula, source in lines:
            value = int(value) if isinstance(value, float) and value.is_integer() else value
            leaves[label] = {"value": value, "unit": unit, "formula": formula, "source": source}
    return found


def _symbols(c: ModelConfig, context: int) -> Iterator[Line]:
    """The letters of the formulas and their values, labelled with the configuration's field."""
    dense = min(c.first_k_dense_replace, c.num_hidden_layers)
    table = {
        "L = num_hidden_layers": c.num_hidden_layers, "L_dense = first_k_dense_replace": dense,
        "L_moe = L − L_dense": c.num_hidden_layers - dense, "d = hidden_size": c.hidden_size, "V = vocab_size": c.vocab_size,
        "n_h = H = num_attention_heads": c.num_attention_heads, "n_kv = H_kv, key-value heads": c.kv_heads,
        "d_c = kv_lora_rank": c.kv_lora_rank, "d_c' = q_lora_rank": c.q_lora_rank,
        "d_nope = qk_nope_head_dim": c.qk_nope_head_dim, "d_r = qk_rope_head_dim": c.qk_rope_head_dim,
        "d_qk = d_nope + d_r": c.qk_head_dim, "d_v = v_head_dim": c.v_head_dim,
        "I = intermediate_size": c.intermediate_size, "I_m = moe_intermediate_size": c.moe_intermediate_size,
        "E = n_routed_experts": c.n_routed_experts, "K = num_experts_per_tok": c.num_experts_per_tok,
        "N_s = n_shared_experts": c.n_shared_experts, "D = num_nextn_predict_layers": c.num_nextn_predict_layers,
        "T = context": context,
    }  # fmt: skip
    for label, value in table.items():
        if value is not None:
            yield label, value, "", "a field of the configuration, or made of such", "config.json of the model"


def _parameters(c: ModelConfig) -> Iterator[Line]:
    unit = "parameters"
    yield "total", parameters.total(c), unit, "sum of the parts below without MTP", V2_PARAMETERS
    formula = "K of E experts; embedding V·d and head V·d counted"
    yield "activated, both embeddings", parameters.activated(c, "both"), unit, formula, V2_PARAMETERS
    formula = "the same without the input embedding, a look-up"
    yield "activated, head only", parameters.activated(c, "head"), unit, formula, V2_PARAMETERS
    formula, source = "the same without embedding and head", "Moonlight report, Table 1"
    yield "activated, neither", parameters.activated(c, "neither"), unit, formula, source
    if c.num_nextn_predict_layers:
        yield "MTP modules, extra", parameters.mtp_total(c), unit, "D·(block + 2d·d + 3d), not in the total", V3_MTP
        formula = "the same with K of E experts, shared head and embedding not counted"
        yield "MTP modules, activated", parameters.mtp_activated(c), unit, formula, V3_MTP
    formula = "E4M3 matrices, a float32 scale per 128 × 128 of them, the rest BF16; with MTP and its copies of V·d"
    yield "size in FP8 as V3 is released", released_weights.census(c).bytes, "bytes", formula, WEIGHTS


def _parts(c: ModelConfig) -> Iterator[Line]:
    for part in parameters.parts(c):
        source = V3_MTP if part.name.startswith("MTP") else V2_PARAMETERS
        yield part.name, part.total, "parameters", part.formula, source
        if part.activated != part.total:
            yield f"{part.name}, activated", part.activated, "parameters", part.formula, source


def _cache_per_layer(c: ModelConfig) -> Iterator[Line]:
    formulas = {"mha": "n_h · (d_nope + d_v)", "gqa": "n_g · (d_nope + d_v)", "mqa": "d_nope + d_v", "mla": "d_c + d_r"}
    for kind, elements in kv_cache.by_kind(c).items():
        groups = f", {elements // kv_cache.mqa_elements(c)} groups" if kind == "gqa" else ""
        label = kind.upper() + groups
        yield label, elements, "elements", formulas[kind], V2_TABLE_1
        for form in kv_cache.BITS:
            yield f"{label}, {FORMS[form]}", kv_cache.bytes_of(elements, form), "bytes", "elements · bits / 8", V2_TABLE_1
    mla = c.attention == "mla"
    formula = formulas["mla"] if mla else "n_kv · ((d_nope + d_r) + d_v): the RoPE part of each key too"
    yield "this configuration", kv_cache.elements(c), "elements", formula, V2_TABLE_1
    if mla:
        yield "expanded (naive mode)", kv_cache.full_elements(c), "elements", "n_h · ((d_nope + d_r) + d_v)", CODE
        formula, source = "(d_c + d_r) / (d_nope + d_v)", "DeepSeek-V2 report, section 2.1.4"
        yield "as many as GQA with", kv_cache.gqa_equivalent_groups(c), "groups", formula, source
        formula, source = "d_c + 4·ceil(d_c/128) + 2·d_r", "FlashMLA repository, README"
        yield "FlashMLA's FP8 format", kv_cache.flashmla_fp8_bytes(c), "bytes", formula, source


def _cache(c: ModelConfig, context: int, batch: int) -> Iterator[Line]:
    formula = "L · elements of this configuration per layer"
    yield "per token", c.num_hidden_layers * kv_cache.elements(c), "elements", formula, V2_TABLE_1
    for form in kv_cache.BITS:
        size = kv_cache.bytes_per_token(c, form)
        yield f"per token, {FORMS[form]}", size, "bytes", "elements per token · bits / 8", V2_TABLE_1
    for form in kv_cache.BITS:
        label, size = f"{batch} × {context} tokens, {FORMS[form]}", kv_cache.cache_bytes(c, context, batch, form)
        yield label, size, "bytes", "batch · T · elements per token · bits / 8", V2_TABLE_1


def _flops(c: ModelConfig, context: int) -> Iterator[Line]:
    half = "n_h(d_qk + d_v)·(T/2)·L"
    yield "forward, causal", flops.forward(c, context), "FLOP", f"2·N + 2·{half}, N: head only", SIX_N
    yield "of it attention", flops.attention_forward(c, context), "FLOP", f"2·{half}", SIX_N
    yield "training, causal", flops.training(c, context), "FLOP", f"3 × forward = 6·N + 6·{half}", SIX_N
    whole = flops.training(c, context, causal=False)
    yield "training, not causal", whole, "FLOP", "6·N + 6·n_h(d_qk + d_v)·T·L", ISCA_4
    if c.num_nextn_predict_layers:
        formula = "Σ_k (T − k)/T · (6·(N_mtp + V·d) + causal attention of a layer)"
        yield "training, MTP on top", flops.mtp_training(c, context), "FLOP", formula, "DeepSeek-V3 report, section 2.2"


def _decode(c: ModelConfig, context: int) -> Iterator[Line]:
    formulas = {
        "absorbed": "2·N + 2·n_h(2·d_c + d_r)·T·L",
        "full cache": "2·N + 2·n_h(d_qk + d_v)·T·L",
        "re-expand": "full cache + 2·d_c·n_h(d_nope + d_v)·(T − 1)·L",
        "no cache": "T · forward over T tokens",
    }
    for mode in flops.decode_modes(c):
        source = f"DeepSeek-V2 report, section 2.1.2; {CODE}"
        yield mode, flops.decode(c, context, mode).flops, "FLOP", formulas[mode], source
    if c.attention == "mla" and flops.absorption_pays_until(c) < float("inf"):
        formula = "d_c(d_nope + d_v)/(2·d_c − d_nope − d_v)"
        yield "absorption pays below", flops.absorption_pays_until(c), "new tokens at once", formula, ARITHMETIC


def _intensity(c: ModelConfig, context: int, batch: int) -> Iterator[Line]:
    formula = "FLOPs per query-key pair / bytes of a cached token and layer"
    yield "attention, BF16 cache", flops.attention_intensity(c), "FLOP/byte", formula, ARITHMETIC
    formula = "batch · FLOPs / (FP8 weights in use, E(1 − (1 − K/E)^batch) experts a layer, + BF16 caches)"
    for size in sorted({1, 8, 64, 512, batch}):
        step = flops.decode_intensity(c, context, size)
        yield f"decoding, batch {size}", step.flops_per_byte, "FLOP/byte", formula, ARITHMETIC


def _training_memory(c: ModelConfig, context: int, batch: int) -> Iterator[Line]:
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
            yield f"{storage.name}: {part}", getattr(used, part), "bytes", formula, storage.source


def _serving_memory(c: ModelConfig, context: int, batch: int) -> Iterator[Line]:
    for label, width in (("FP8", 1), ("BF16", 2), ("FP32", 4)):
        used = memory.serving_memory(c, context, batch, width)
        yield f"{label} weights", used.weights, "bytes", f"total · {width} bytes, scales not counted", ARITHMETIC
        yield f"{label} weights, BF16 cache", used.total, "bytes", "weights + batch · T · cache per token", ARITHMETIC


def _position(c: ModelConfig) -> Iterator[Line]:
    yarn = "" if c.rope_scaling is None else " · (0.1 · mscale_all_dim · ln s + 1)²"
    yield "softmax scale", softmax_scale(c), "", f"(d_nope + d_r)^-1/2{yarn}", CODE
