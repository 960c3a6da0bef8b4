"""The labels of the museum's FP8 wing."""

from minids.lab.mistakes import Mistake, fp8
from minids.lab.mistakes.label import Label, case

LABELS: dict[Mistake, Label] = {
    fp8.halves_rounded_away_from_zero: Label(
        "- code = np.rint(y / step)                  # halves to even\n+ code = np.floor(np.abs(y) / step + 0.5)   # halves up",
        "To-even errs in both directions; always up makes every sum too large.",
        "All 256 codes and the halves between them, beside another implementation, to the bit.",
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
    ),
    fp8.scale_of_the_tensor_in_every_tile: Label(
        "- scale = np.abs(tiles).max(axis=-1) / 448\n+ scale = np.abs(tiles).max() / 448",
        "One outlier spoils all the others.",
        "An outlier takes the range of its own tile only: for this V3 has tiles. One scale a tensor is the older recipe.",
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
    ),
    fp8.weight_gradient_in_the_tiles_of_the_forward_pass: Label(
        "- x8 = quantise(x, (128, 1))     # this product sums over tokens\n+ x8 = quantise(x, (1, 128))",
        "The points lie on top of each other: as a number it is as good. But a scale per token cannot be taken out of a sum "
        "over tokens, so no tensor core computes it, and a simulation that does describes nothing.",
        "The product written out tile by tile.",
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
    ),
}
