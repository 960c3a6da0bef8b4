"""Claims about work, time and money: FLOPs, decoding speed, training. See ``claims``."""

from __future__ import annotations

from minids.config import ModelConfig
from minids.lab.analysis import cost, flops, models, network, pipeline
from minids.lab.analysis.claim import Registry

COST = Registry()
claim = COST.claim

V3, V2 = ModelConfig.preset("deepseek-v3"), ModelConfig.preset("deepseek-v2")
BILLION = 1e9


@claim(
    "Training FLOPs per token, V3 / V2",
    "6·N + 3·2·n_h(d_qk + d_v)·(4096/2)·L, N with head and without embedding",
    "ISCA 2025, Table 2",
    printed=(250, 155),
    digit=1,
    unit="GFLOP",
    words="250.46 and 155.31",
)
def training_gflop():
    """250.46 and 155.31."""
    return flops.training(V3, 4096) / BILLION, flops.training(V2, 4096) / BILLION


@claim(
    "Training FLOPs per token, Llama-3.1-405B",
    "the same formula, n_h = 128, d_h = 128, L = 126",
    "ISCA 2025, Table 2",
    printed=2448,
    digit=1,
    unit="GFLOP",
    words="2473, 1 % more; 2448 would be 6 · 408B",
)
def llama_training_gflop():
    """2473.2."""
    return models.LLAMA_405B.training_flops(4096) / BILLION


@claim(
    "Training FLOPs per token, Qwen 72B",
    "the same formula, n_h = 64, d_h = 128, L = 80 (sizes of Qwen2.5-72B)",
    "ISCA 2025, Table 2",
    printed=394,
    digit=1,
    unit="GFLOP",
    words="445; the printed 394 = 6 · 65.7B cannot be rebuilt from any reading of the sizes",
)
def qwen_training_gflop():
    """444.9."""
    return models.QWEN_72B.training_flops(4096) / BILLION


@claim(
    "V3: training TFLOP/s per GPU, causal / not",
    "FLOPs per token · 272.80B tokens a day / 86,400 s / 2048",
    "ISCA 2025, Table 4",
    printed=(385, 432),
    digit=1,
    unit="TFLOP/s",
    words="two columns of one table: the token rate and the FLOP rate differ by 0.3 %",
)
def v3_tflops_per_gpu():
    """386.1 and 433.5."""
    rate = 272.80e9 / 86_400 / cost.V3_GPUS
    return tuple(flops.training(V3, 4096, causal) * rate / 1e12 for causal in (True, False))


@claim(
    "Shortest time per token on InfiniBand",
    "2 · 3 · 32 · 9 · 7000 / 50e9 · 61",
    "ISCA 2025, section 2.3.2",
    printed=14.76,
    digit=0.01,
    unit="ms",
    words="with the paper's 7000 for the hidden size; V3's 7168 make 15.11 ms",
)
def tpot_infiniband():
    """14.757 ms."""
    return 1e3 * network.decode_limit(network.INFINIBAND).tpot


@claim(
    "Tokens per second on InfiniBand",
    "1 / 14.757 ms",
    "ISCA 2025, section 2.3.2",
    printed=67,
    digit=1,
    unit="tokens/s",
)
def tokens_per_second_infiniband():
    """67.76."""
    return network.decode_limit(network.INFINIBAND).tokens_per_second


@claim(
    "Shortest time per token on GB200 NVL72",
    "2 · 3 · 32 · 9 · 7000 / 900e9 · 61",
    "ISCA 2025, section 2.3.2",
    printed=0.82,
    digit=0.01,
    unit="ms",
)
def tpot_nvl72():
    """0.8198 ms."""
    return 1e3 * network.decode_limit(network.NVL72).tpot


@claim(
    "Tokens per second on GB200 NVL72",
    "1 / 0.8198 ms",
    "ISCA 2025, section 2.3.2",
    printed=1200,
    digit=100,
    unit="tokens/s",
    words="printed as about 1200",
)
def tokens_per_second_nvl72():
    """1219.8."""
    return network.decode_limit(network.NVL72).tokens_per_second


@claim(
    "Tokens per pass with one draft token",
    "1 + p, p = 0.85 to 0.90",
    "DeepSeek-V3 report, section 5.4.3",
    printed=(1.8, 1.8),
    digit=0.1,
    unit="tokens",
    words="1.8 is the speed, 1.85 to 1.90 the tokens a pass: 3 to 6 % go into drafting. The ISCA paper says p = 0.80 to 0.90",
)
def speculative_tokens_per_pass():
    """1.85 and 1.90, against a printed speed-up of 1.8."""
    return 1 + 0.85, 1 + 0.90


@claim(
    "V3: GPU hours / dollars",
    "2664K + 119K + 5K; · 2 $",
    "DeepSeek-V3 report, Table 1",
    printed=(2_788_000, 5_576_000),
    unit="H800 hours, dollars",
)
def v3_bill():
    """2,788,000 and 5,576,000."""
    return cost.v3_gpu_hours(), cost.v3_dollars()


@claim(
    "V3: days per trillion tokens",
    "180K / (2048 · 24)",
    "DeepSeek-V3 report, section 1",
    printed=3.7,
    digit=0.1,
    unit="days",
)
def days_per_trillion():
    """3.66."""
    return cost.v3_days(cost.V3_HOURS_PER_TRILLION)


@claim(
    "V3: pre-training days by bill / by token rate",
    "2664K / (2048 · 24); 14.8T / 272.8B a day",
    "DeepSeek-V3 report, Table 1; ISCA 2025, Table 4",
    unit="days",
    words="the two papers are consistent with each other",
)
def pretraining_days():
    """54.2 and 54.25."""
    return cost.v3_days(), cost.V3_TOKENS / 272.8e9


@claim(
    "V3: tokens per step",
    "15360 · 4096; 272.80B a day · 19.926 s",
    "DeepSeek-V3 report, section 4.2; ISCA 2025, Table 4",
    unit="tokens",
    words="the two papers are consistent with each other",
)
def tokens_per_step():
    """62,914,560, and 62.91M."""
    return 15_360 * 4096, 272.80e9 / 86_400 * 19.926


@claim(
    "V3: tokens of the learning-rate phases",
    "10 + 4.3 + 0.333 + 0.167",
    "DeepSeek-V3 report, section 4.2",
    printed=14.8,
    digit=0.1,
    unit="trillion tokens",
)
def learning_rate_phases():
    """14.8."""
    return 10 + 4.3 + 0.333 + 0.167


@claim(
    "V3: tokens of the two stages of context extension",
    "1000 · 1920 · 32768; 1000 · 480 · 131072",
    "DeepSeek-V3 report, section 4.3",
    unit="tokens",
    words="the report gives steps, batches and lengths; both stages see equally many tokens",
)
def context_extension_tokens():
    """62,914,560,000 twice."""
    return 1000 * 1920 * 32_768, 1000 * 480 * 131_072


@claim(
    "V3.1: its context extension over V3's",
    "630B and 209B over 62.9B",
    "V3.1 model card (second hand)",
    printed=(10, 3.3),
    digit=0.1,
    unit="times",
)
def v31_context_extension():
    """10.01 and 3.32."""
    return tuple(tokens / stage for tokens, stage in zip((630e9, 209e9), context_extension_tokens(), strict=True))


@claim(
    "Bubble at PP = 16: 1F1B / ZB1P / DualPipe",
    "V3's Table 2 with F = W = 1, B = 2, F&B = 3, by simulation",
    "DeepSeek-V3 report, Table 2",
    unit="units",
    words="the table prints formulas; simulation and formulas give the same 45, 15, 14",
)
def bubbles():
    """45, 15 and 14, simulated."""
    return tuple(pipeline.simulate(name, 16, 32).bubble for name in ("1F1B", "ZB1P", "DualPipe"))


@claim(
    "MTP loss: terms over divisor, k = 1, T = 4096",
    "(T − k) / T",
    "DeepSeek-V3 report, eq. 24",
    words="the sum of eq. 24 has T − k terms and divides by T: 0.02 % less than a mean",
)
def mtp_loss_terms():
    """4095/4096."""
    return 4095 / 4096


@claim(
    "V2: GPU hours saved against DeepSeek 67B",
    "1 − 172.8K/300.6K",
    "DeepSeek-V2 report, section 3.2.3",
    printed=42.5,
    digit=0.1,
    unit="%",
)
def v2_training_saving():
    """42.5 %."""
    return 100 * cost.v2_saving()


@claim(
    "Largest finite E4M3 / E5M6",
    "1.75 · 2⁸; (2 − 2⁻⁶) · 2¹⁵",
    "DeepSeek-V3 repository, kernel.py; TileKernels, cast_e5m6.py",
    printed=(448, 65_024),
)
def fp8_maxima():
    """448 (the code 1.111 stands for NaN, so 1.110 is the largest) and 65,024."""
    return 1.75 * 2**8, (2 - 2**-6) * 2**15


@claim(
    "V3.2: tokens of warm-up / sparse stage",
    "1000 · 16 · 131072; 15000 · 480 · 131072",
    "DeepSeek-V3.2-Exp report",
    printed=(2.1e9, 943.7e9),
    digit=0.1e9,
    unit="tokens",
)
def v32_tokens():
    """2.097B and 943.7B."""
    return 1000 * 16 * 131_072, 15_000 * 480 * 131_072


@claim(
    "DeepSeek's service: cost per day / margin",
    "226.75 · 8 · 24 · 2 $; 562,027 / cost − 1",
    "open-infra-index repository, day 6",
    printed=(87_072, 545),
    digit=1,
    unit="dollars, %",
    words="the income is theoretical, every token at list price",
)
def serving_margin():
    """87,072 and 545."""
    day = cost.serving_day()
    return day.cost, 100 * day.margin
