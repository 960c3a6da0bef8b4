"""The labels of the museum's room of learning from rewards."""

from minids.lab.mistakes import Mistake, policy
from minids.lab.mistakes.label import Label, case

LABELS: dict[Mistake, Label] = {
    policy.divergence_as_a_difference_of_logs: Label(
        "- D = q / p - np.log(q / p) - 1        # p the policy, q the reference\n+ D = np.log(p / q)",
        "On the policy's own answers its gradient is 0 on average: the anchor holds nothing.",
        "The divergence is never negative. The mean of both is the same, which is why one passes for the other.",
        (case("NeMo RL", "2026-05", "NVIDIA-NeMo/RL/pull/2506", "the gradient “is zero in expectation”"),),
    ),
    policy.larger_term_in_the_clip: Label(
        "- np.minimum(ratio * A, np.clip(ratio, 1 - e, 1 + e) * A)\n+ np.maximum(ratio * A, np.clip(ratio, 1 - e, 1 + e) * A)",
        "A bad answer that became likelier is let go.",
        "Both signs of the advantage, both sides of the clip: four cases.",
        (
            case(
                "takuseno/ppo",
                "2018-07",
                "takuseno/ppo/issues/3",
                "the smaller ratio times A: for a bad answer the larger term",
            ),
        ),
    ),
    policy.group_numbers_lost: Label(
        "- A = rewards - rewards.mean(axis=group)\n+ A = rewards",
        "There is no baseline: no answer is made rarer.",
        "Advantages of a group sum to zero.",
        (
            case("slime", "2026-01", "THUDM/slime/issues/1414", "a relative: one mean for all groups"),
            case("AReaL", "2026-06", "areal-project/AReaL/issues/1419", "a relative: rows of other groups"),
        ),
    ),
    policy.old_log_probabilities_with_gradient: Label(
        "- ratio = np.exp(log_p - constant(log_p_old))\n+ ratio = np.exp(log_p - log_p)",
        "The ratio is 1 in both at the first step; here its gradient is 0 too.",
        "In the first step the loss is zero and its gradient is not.",
        (
            case("miles", "2026-07", "radixark/miles/pull/1832", "a guard against it; closed"),
            case(
                "mlx-lm-lora",
                "2026-07",
                "Goekdeniz-Guelmez/mlx-lm-lora/issues/55",
                "a relative: by default the ratio is a constant 1",
            ),
            case("TRL", "2025-01", "huggingface/trl/issues/2681", "a question: what detach is for"),
        ),
    ),
    policy.balancing_bias_moved_by_rollouts: Label(
        "  answers = sample(model, questions)\n+ model.update_biases(answers.counts)",
        "The bias goes on following the load, now that of a few answers to a few questions.",
        "The bias is where it was, after a step.",
        (
            case(
                "mcore-bridge",
                "2026-09",
                "modelscope/mcore-bridge/pull/195",
                "a relative: it goes on moving in LoRA, with the router frozen",
            ),
            case(
                "prime-rl",
                "2026-07",
                "PrimeIntellect-ai/prime-rl/pull/2953",
                "not a mistake there: a switch, off by default; closed",
            ),
        ),
    ),
    policy.reward_read_behind_the_padding: Label(
        "- reward = h[rows, lengths - 1] @ w\n+ reward = h[:, -1] @ w           # rows filled up to the longest",
        "What an answer is worth depends on what it is judged beside.",
        "An answer alone and among longer ones: the same reward.",
        (case("TRL", "2025-02", "huggingface/trl/issues/2778", "a relative: the padding stands on the other side"),),
    ),
}
