"""Claims about sizes: parameters, and the key-value cache. See ``claims``."""

from __future__ import annotations

from minids.config import ModelConfig
from minids.lab.analysis import kv_cache, models, parameters, released_weights
from minids.lab.analysis.claim import Registry

SIZES = Registry()
claim = SIZES.claim

V3, V2, V2_LITE = (ModelConfig.preset(name) for name in ("deepseek-v3", "deepseek-v2", "deepseek-v2-lite"))
MOONLIGHT, KIMI_K2 = ModelConfig.preset("moonlight-16b-a3b"), ModelConfig.preset("kimi-k2")


@claim(
    "V3: parameters in all",
    "2·V·d + d + Σ layers (MLA + norms + FFN or experts)",
    "DeepSeek-V3 report, abstract",
    printed=671e9,
    digit=1e9,
    unit="parameters",
    words="671,026,419,200, of which 58 · 256 are routing biases",
)
def v3_total():
    """671,026,419,200: the main model with embedding, head and routing bias, without the MTP module."""
    return parameters.total(V3)


@claim(
    "V3: parameters activated, with the head and with both embeddings",
    "as the total with 8 of 256 experts a layer",
    "DeepSeek-V3 report, abstract",
    printed=(37e9, 37e9),
    digit=1e9,
    unit="parameters",
    words="37B fits both conventions: 36.63B rounded, 37.55B cut",
)
def v3_activated():
    """36.626B with the head only, 37.552B with the input embedding too."""
    return parameters.activated(V3, "head"), parameters.activated(V3, "both")


@claim(
    "V3: parameters activated, in the words of the README",
    "the same with both embeddings",
    "DeepSeek-V3 repository, README_WEIGHTS",
    printed=36.7e9,
    digit=0.1e9,
    unit="parameters",
    words="36.7B is said to include embedding and head, which makes 37.55B; the README on the model hub (second hand) says "
    "36.6B with the head only, and that fits",
)
def v3_activated_readme():
    """37.552B."""
    return parameters.activated(V3, "both")


@claim(
    "V3: parameters only the MTP module has",
    "block + eh_proj 2·d² + 3 norms of d",
    "DeepSeek-V3 repository, README_WEIGHTS",
    printed=11.5e9,
    digit=0.1e9,
    unit="parameters",
    words="11.610B; the README's 11.5B is the block alone (11.507B) and leaves eh_proj (0.103B) out",
)
def mtp_unique():
    """11,610,068,224."""
    return parameters.mtp_total(V3)


@claim(
    "V3: MTP activated with head / with both",
    "block with 8 experts (+ V·d, + 2·V·d), eh_proj left out",
    "DeepSeek-V3 repository README (2.4B) and the README on the model hub (1.5B, second hand)",
    printed=(1.5e9, 2.4e9),
    digit=0.1e9,
    unit="parameters",
    words="both leave eh_proj out; with it they would be 1.615B and 2.541B",
)
def mtp_activated_without_eh_proj():
    """1.512B and 2.439B: what the READMEs count."""
    block = parameters.mtp_activated(V3) - 2 * V3.hidden_size**2 - 3 * V3.hidden_size
    vd = V3.vocab_size * V3.hidden_size
    return block + vd, block + 2 * vd


@claim(
    "V3: elements of the released files",
    "main + MTP + 2 copies of V·d + one scale per 128 × 128 block",
    "model hub metadata (second hand)",
    printed=684_531_386_000,
    unit="elements",
    words="equal to the last element, which proves the type of every tensor",
)
def released_elements():
    """684,531,386,000."""
    return released_weights.census(V3).total


@claim(
    "V2 / V2-Lite: parameters in all",
    "as for V3, no routing bias",
    "DeepSeek-V2 report, abstract and appendix B",
    printed=(236e9, 15.7e9),
    digit=(1e9, 0.1e9),
    unit="parameters",
    words="235,741,434,880 and 15,706,484,224",
)
def v2_totals():
    """235,741,434,880 and 15,706,484,224."""
    return parameters.total(V2), parameters.total(V2_LITE)


@claim(
    "V2 / V2-Lite: parameters activated",
    "as for V3; V2 with both embeddings, V2-Lite with the head only",
    "DeepSeek-V2 report, abstract and appendix B",
    printed=(21e9, 2.4e9),
    digit=(1e9, 0.1e9),
    unit="parameters",
    words="by different conventions: V2's number fits with both embeddings, V2-Lite's with the head only (both make 2.66B)",
)
def v2_activated():
    """21.376B and 2.451B."""
    return parameters.activated(V2, "both"), parameters.activated(V2_LITE, "head")


@claim(
    "Moonlight / Kimi-K2: parameters in all",
    "as for V3",
    "Moonlight report; Kimi-K2 README",
    printed=(16e9, 1e12),
    digit=(1e9, 1e12),
    unit="parameters",
    words="1.026T is printed as 1T; a public count of K2 is 3,416 = 61 · 56 higher for an unknown reason (UNVERIFIED)",
)
def relatives_totals():
    """15,960,110,208 and 1,026,408,232,448."""
    return parameters.total(MOONLIGHT), parameters.total(KIMI_K2)


@claim(
    "Moonlight: parameters in all and activated, without embeddings",
    "as for V3, minus 2·V·d",
    "Moonlight report, Table 1",
    printed=(15.29e9, 2.24e9),
    digit=0.01e9,
    unit="parameters",
)
def moonlight_without_embeddings():
    """15.289B and 2.244B."""
    embeddings = 2 * MOONLIGHT.vocab_size * MOONLIGHT.hidden_size
    return parameters.total(MOONLIGHT) - embeddings, parameters.activated(MOONLIGHT, "neither")


@claim(
    "V3: scales of kv_a_proj_with_mqa",
    "ceil(576/128) × ceil(7168/128)",
    "DeepSeek-V3 repository, README_WEIGHTS",
    printed=(5, 56),
)
def kv_a_scale_grid():
    """5 × 56: the last block of rows is half full."""
    return released_weights.scale_shape((V3.kv_lora_rank + V3.qk_rope_head_dim, V3.hidden_size))


@claim("MLA: cache per token and layer", "d_c + d_r = 512 + 64", "DeepSeek-V2 report, Table 1", printed=576, unit="elements")
def mla_cache():
    """576."""
    return kv_cache.mla_elements(V3)


@claim("V3: cache per token, BF16", "61 · 576 · 2", "ISCA 2025, Table 1", printed=70_272, unit="bytes")
def v3_cache_bytes():
    """70,272."""
    return kv_cache.bytes_per_token(V3)


@claim("V2: cache per token", "60 · 576", "DeepSeek-V2 report, Table 9", printed=34_600, digit=100, unit="elements")
def v2_cache():
    """34,560."""
    return V2.num_hidden_layers * kv_cache.mla_elements(V2)


@claim(
    "V2's small MoE: MLA / MHA cache per token",
    "27 · 576; 2 · 16 · 128 · 27",
    "DeepSeek-V2 report, Table 9",
    printed=(15_600, 110_600),
    digit=100,
    unit="elements",
)
def small_moe_caches():
    """15,552 and 110,592."""
    layers = V2_LITE.num_hidden_layers
    return layers * kv_cache.mla_elements(V2_LITE), layers * kv_cache.mha_elements(V2_LITE)


@claim(
    "V2's large MoE: MHA cache per token",
    "2 · 128 · 128 · 60 with V2's heads",
    "DeepSeek-V2 report, Table 9",
    printed=860_200,
    digit=100,
    unit="elements",
    words="V2's 128 heads would give 1,966,080; 860.2K is 2 · 56 · 128 · 60, a baseline with n_h·d_h = 7168",
)
def large_moe_mha_cache():
    """1,966,080 with V2's own 128 heads."""
    return V2.num_hidden_layers * kv_cache.mha_elements(V2)


@claim("MLA as GQA groups", "576 / (2 · 128)", "DeepSeek-V2 report, section 2.1.4", printed=2.25, unit="groups")
def gqa_groups():
    """2.25."""
    return kv_cache.gqa_equivalent_groups(V3)


@claim("MLA against MHA of its own heads", "32,768 / 576", "computed only", unit="times", words="32,768 elements against 576")
def mha_over_mla():
    """56.9."""
    return kv_cache.mha_over_mla(V3)


@claim(
    "Demo code's naive cache per layer / over latent",
    "128 · (192 + 128); divided by 576",
    "DeepSeek-V3 repository, inference/model.py",
    unit="elements",
    words="the buffers the code allocates",
)
def naive_cache():
    """40,960 elements, 71.1 times the latent."""
    return kv_cache.full_elements(V3), kv_cache.full_elements(V3) / kv_cache.mla_elements(V3)


@claim(
    "V2's cache reduction against DeepSeek 67B",
    "1 − 34,560 · 6 / (194,560 · 16)",
    "DeepSeek-V2 report, abstract and section 3.2.3; sizes of DeepSeek 67B recalled",
    printed=93.3,
    digit=0.1,
    unit="%",
    words="only because V2's cache is quantised to 6 bits: by elements it is 82.2 %; against MHA with V2's heads 98.24 %",
)
def v2_cache_reduction():
    """93.34 %."""
    v2 = V2.num_hidden_layers * kv_cache.mla_elements(V2)
    return 100 * kv_cache.reduction(v2, models.DEEPSEEK_67B.cache_elements, 6, 16).by_bits


@claim(
    "The same by elements alone",
    "1 − 34,560 / 194,560",
    "DeepSeek-V2 report, abstract; sizes of DeepSeek 67B recalled",
    printed=93.3,
    digit=0.1,
    unit="%",
    words="architecture alone saves 82.2 %; the rest of the 93.3 % is the 6-bit cache",
)
def v2_cache_reduction_by_elements():
    """82.2 %."""
    v2 = V2.num_hidden_layers * kv_cache.mla_elements(V2)
    return 100 * kv_cache.reduction(v2, models.DEEPSEEK_67B.cache_elements, 6, 16).by_elements


@claim(
    "Qwen2.5-72B / Llama-3.1-405B: cache per token, BF16",
    "2 · 8 · 128 · L · 2, L = 80 and 126",
    "ISCA 2025, Table 1",
    printed=(327_680, 516_096),
    unit="bytes",
)
def gqa_cache_bytes():
    """327,680 and 516,096."""
    return 2 * models.QWEN_72B.cache_elements, 2 * models.LLAMA_405B.cache_elements


@claim(
    "Qwen2.5-72B's cache over V3's",
    "327,680 / 70,272",
    "ISCA 2025, Table 1",
    printed=4.66,
    digit=0.01,
    unit="times",
)
def qwen_multiplier():
    """4.663."""
    return 2 * models.QWEN_72B.cache_elements / kv_cache.bytes_per_token(V3)


@claim(
    "Llama-3.1-405B's cache over V3's",
    "516,096 / 70,272",
    "ISCA 2025, Table 1",
    printed=7.28,
    digit=0.01,
    unit="times",
    words="7.344: the printed 7.28 does not follow from the bytes in the same table",
)
def llama_multiplier():
    """7.344."""
    return 2 * models.LLAMA_405B.cache_elements / kv_cache.bytes_per_token(V3)


@claim(
    "FlashMLA's FP8 cache per token and layer",
    "512 + 4 · 4 + 64 · 2",
    "FlashMLA repository, README",
    printed=656,
    unit="bytes",
    words="V3's 61 layers make 40,016 bytes a token",
)
def flashmla_cache():
    """656."""
    return kv_cache.flashmla_fp8_bytes(V3)
