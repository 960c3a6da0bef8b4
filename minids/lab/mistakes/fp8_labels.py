"""The labels of the museum's FP8 wing."""

from minids.lab.mistakes import Mistake, fp8
from minids.lab.mistakes.label import Label, case

LABELS: dict[Mistake, Label] = {
    fp8.halves_rounded_away_from_zero: Label(
        "- code = np.rint(y / step)                  # halves to even\n+ code = np.floor(np.abs(y) / step + 0.5)   # halves up",
        "To-even errs in both directions; always up makes every sum too large.",
        "All 256 codes and the halves between them, beside another implementation, to the bit.",
        (
            case("ONNX", "2023-07", "onnx/onnx/pull/5456"),
            case("Triton", "2026-09", "triton-lang/triton/pull/11753", "E5M2 in software"),
            case("SGLang", "2026-09", "sgl-project/sglang/pull/40581"),
        ),
    ),
    fp8.overflow_instead_of_saturation: Label(
        "- code = encode(np.clip(y, -448, 448))\n+ code = encode(y)",
        "One number that is too large becomes NaN, and after the next product all are.",
        "Encode 1,000. It is what libraries' casts do, and they may: the standard leaves it open.",
        (
            case("ml_dtypes", "2025-01", "jax-ml/ml_dtypes/issues/260", "as intended there"),
            case("oneDNN", "2025-07", "uxlfoundation/oneDNN/pull/3675", "a draft that saturates"),
        ),
    ),
    fp8.subnormals_flushed_to_zero: Label(
        "- step = 2.0 ** np.maximum(exponent, -6)\n+ y = np.where(np.abs(y) < 2.0**-6, 0, y)",
        "The range ends three powers of two earlier.",
        "Every number of the format is encoded as itself.",
        (
            case(
                "tt-metal",
                "2025-09",
                "tenstorrent/tt-metal/pull/29734",
                "not a mistake there: a test's own E4M3, in which it is meant; closed",
            ),
            case("1Cat-vLLM", "2026-08", "1CatAI/1Cat-vLLM/pull/222", "a relative: scales that FP16 holds as subnormals"),
        ),
    ),
    fp8.scale_of_the_tensor_in_every_tile: Label(
        "- scale = np.abs(tiles).max(axis=-1) / 448\n+ scale = np.abs(tiles).max() / 448",
        "One outlier spoils all the others.",
        "An outlier takes the range of its own tile only: for this V3 has tiles. One scale a tensor is the older recipe.",
        (
            case(
                "musubi-tuner",
                "2025-09",
                "kohya-ss/musubi-tuner/pull/575",
                "not a mistake there: its recipe, until this change",
            ),
            case(
                "axolotl",
                "2026-08",
                "axolotl-ai-cloud/axolotl/issues/3967",
                "not a mistake there: the only recipe, and a wish for others",
            ),
        ),
    ),
    fp8.power_of_two_scales_rounded_down: Label(
        "- exponent = np.ceil(np.log2(scale))\n+ exponent = np.floor(np.log2(scale))",
        "The largest number of a tile is cut to as little as half.",
        "The largest number of a tile, after and before.",
        (
            case("humming", "2026-07", "inclusionAI/humming/pull/39"),
            case("transformers", "2026-06", "huggingface/transformers/pull/46763", "a relative: rounded after quantising"),
        ),
    ),
    fp8.scales_forgotten_in_the_weight_gradient: Label(
        "- dW = (codes_dy * scales_dy).T @ (codes_x * scales_x)\n+ dW = (codes_dy * scales_dy).T @ codes_x",
        "Wrong by factors of ten to a hundred, another one in every tile. Adam divides most of it out again.",
        "The product written out tile by tile. The loss falls.",
        (
            case(
                "TransformerEngine",
                "2024-08",
                "NVIDIA/TransformerEngine/pull/1128",
                "a relative: wrong scales for the weights of grouped products",
            ),
            case("torchao", "2026-04", "pytorch/ao/pull/4229", "a relative: x's scales not transposed in dW"),
            case(
                "LTX-2",
                "2026-03",
                "Lightricks/LTX-2/pull/172",
                "a relative: weights in use without scales, 770 times too large; closed",
            ),
        ),
    ),
    fp8.weight_gradient_in_the_tiles_of_the_forward_pass: Label(
        "- x8 = quantise(x, (128, 1))     # this product sums over tokens\n+ x8 = quantise(x, (1, 128))",
        "The points lie on top of each other: as a number it is as good. But a scale per token cannot be taken out of a sum "
        "over tokens, so no tensor core computes it, and a simulation that does describes nothing.",
        "The product written out tile by tile.",
        (
            case("DeepGEMM", "2025-02", "deepseek-ai/DeepGEMM/issues/10", "a question, with the reason why it cannot be done"),
            case(
                "DeepGEMM",
                "2025-12",
                "deepseek-ai/DeepGEMM/issues/243",
                "a question: why scales per channel and not per token; open",
            ),
        ),
    ),
    fp8.promotion_forgotten: Label(
        "  for k in range(0, K, 128):\n-     total += short_sum(a[:, k : k + 128], b[k : k + 128])   # FP32\n"
        "+ total = short_sum(a, b)",
        "The short sum runs to the end: per cents, growing with its length.",
        "A long sum of positive numbers.",
        (case("CUTLASS", "2024-07", "NVIDIA/cutlass/pull/1641", "for blocks of 256: never promoted"),),
    ),
    fp8.attention_output_in_e4m3: Label(
        "- x8 = quantise(o, E5M6, power_of_two=True)\n+ x8 = quantise(o, E4M3)",
        "Up to 6 % where E5M6 has less than 1, in a number that is used twice.",
        "Ask the layer behind attention for its format.",
        (
            case("vLLM", "2026-09", "vllm-project/vllm/pull/55696", "a relative: through E4M3 without any scale, in serving"),
            case(
                "miles",
                "2026-06",
                "radixark/miles/pull/1505",
                "a relative: V4's first linear behind attention, now left in BF16",
            ),
        ),
    ),
    fp8.router_in_fp8: Label(
        "- logits = u @ W_gate.T\n+ logits = fp8_matmul(u, W_gate.T)",
        "Two experts whose logits differ by less than a few thousandths are told apart by rounding.",
        "The paper's list of what stays in full precision: embedding, head, router, norms, attention.",
        (case("MaxText", "2026-09", "AI-Hypercomputer/maxtext/pull/5293"),),
    ),
    fp8.master_weights_in_fp8: Label(
        "  W8 = quantise(W)\n- W -= step\n+ W = W8 - step",
        "Every update below half a step of the format is lost. The weight stands still, and nothing complains.",
        "Sixty small updates must add up.",
        (
            case("COAT", "2025-02", "NVlabs/COAT/issues/3", "a question, answered: small updates would be lost"),
            case(
                "Model-Optimizer",
                "2026-09",
                "NVIDIA/Model-Optimizer/pull/2322",
                "a relative: BF16; 78 % of some gains were still exactly 1",
            ),
        ),
    ),
}
