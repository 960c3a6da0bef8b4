"""Which test must fail with each mistake, and which weak checks happen to notice it, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minids.lab import mistakes
from minids.lab.mistakes import fp8, policy
from minids.ops.float8 import E4M3

SHAPES, NOT_ZERO, FALLING = "shapes", "gradients not zero", "falling loss"
"""The weak checks, in test_weak_checks_do_not_notice.py."""


class Guard(NamedTuple):
    mistake: Callable
    test: str  # that must fail, as pytest names it below tests/
    arguments: tuple[Any, ...] = ()  # of that test
    weak_checks: dict[str, str] = {}  # noqa: RUF012 - that notice it after all, and why


GUARDS = [
    Guard(mistakes.gates_from_biased_scores, "ops/test_router.py::test_gates_come_from_the_unbiased_score"),
    Guard(mistakes.softmax_gate, "ops/test_router.py::test_the_v3_score_looks_at_each_expert_alone"),
    Guard(
        mistakes.forbidden_groups_set_to_zero,
        "ops/test_router.py::test_a_negative_biased_score_never_loses_to_a_forbidden_expert",
    ),
    Guard(
        mistakes.bias_moved_the_wrong_way,
        "ops/test_bias_update.py::test_an_overloaded_expert_goes_down_and_an_underloaded_one_up",
    ),
    Guard(mistakes.bias_updated_in_evaluation, "model/test_model.py::test_evaluation_leaves_the_whole_model_as_it_was"),
    Guard(
        mistakes.bias_updated_in_every_backward_pass, "model/test_model.py::test_a_training_pass_does_not_move_the_bias_either"
    ),
    Guard(
        mistakes.balance_loss_from_detached_scores, "ops/test_balance_loss.py::test_gradient_reaches_every_score_chosen_or_not"
    ),
    Guard(mistakes.residual_inside_the_moe_layer, "layers/test_moe.py::test_forward_is_the_papers_equations"),
    Guard(mistakes.rope_key_per_head, "layers/test_mla.py::test_all_heads_share_one_rope_key_straight_from_the_hidden_state"),
    Guard(
        mistakes.rope_key_from_the_latent,
        "layers/test_mla.py::test_all_heads_share_one_rope_key_straight_from_the_hidden_state",
    ),
    Guard(mistakes.rope_key_gradient_of_one_head, "layers/test_mla.py::test_gradient"),
    Guard(mistakes.rope_in_the_other_layout, "ops/test_rope.py::test_interleaved_pairs_are_neighbours"),
    Guard(mistakes.linear_interpolation_as_yarn, "ops/test_yarn.py::test_frequencies_of_v3"),
    Guard(mistakes.yarn_with_a_reversed_ramp, "ops/test_yarn.py::test_frequencies_of_v3"),
    Guard(mistakes.yarn_without_mscale, "layers/test_mla.py::test_forward_is_the_papers_equations_in_every_variant", ("YaRN",)),
    Guard(
        mistakes.mtp_head_without_the_block,
        "layers/test_mtp.py::test_every_position_sees_the_earlier_ones_through_the_modules_own_block",
        weak_checks={NOT_ZERO: "the idle block gets no gradient; a program without such a block has nothing to notice"},
    ),
    Guard(mistakes.parallel_mtp_heads, "model/test_model.py::test_depth_two_reads_the_state_of_depth_one"),
    Guard(mistakes.mtp_shown_its_target, "model/test_model.py::test_mtp_depth_k_sees_exactly_the_tokens_up_to_i_plus_k"),
    Guard(mistakes.cache_offset_forgotten, "inference/test_decoder.py::test_one_token_at_a_time_too", ("mla", "latent", True)),
    Guard(
        mistakes.resumed_from_the_beginning_of_the_data,
        "training/test_batches.py::test_a_run_continued_from_any_step_gets_the_batches_it_would_have_got",
        (3, np.random.PCG64),
    ),
    Guard(
        mistakes.resumed_without_the_generator,
        "training/test_batches.py::test_a_run_continued_from_any_step_gets_the_batches_it_would_have_got",
        (3, np.random.PCG64),
    ),
    Guard(
        mistakes.resumed_without_the_routing_bias,
        "checkpoint/test_model_folder.py::test_every_number_comes_back_the_routing_biases_too",
    ),
    # Of generation.
    Guard(
        mistakes.speculation_by_a_ratio_heuristic,
        "inference/test_speculative.py::test_refused_guesses_are_replaced_from_what_the_draft_left_out",
    ),
    Guard(mistakes.mla_that_caches_full_keys_and_values, "inference/test_cache.py::test_bytes_are_those_of_v2_table_1"),
    # Of FP8.
    Guard(
        fp8.halves_rounded_away_from_zero,
        "ops/test_float8.py::test_halves_between_codes_round_to_even_as_ml_dtypes_does",
        (E4M3, np.float32),
    ),
    Guard(fp8.overflow_instead_of_saturation, "ops/test_float8.py::test_encoding_saturates_and_nan_stays_nan", (E4M3,)),
    Guard(fp8.subnormals_flushed_to_zero, "ops/test_float8.py::test_every_number_of_the_format_is_encoded_as_itself", (E4M3,)),
    Guard(fp8.scale_of_the_tensor_in_every_tile, "ops/test_quantise.py::test_an_outlier_takes_the_range_of_its_own_tile_only"),
    Guard(
        fp8.power_of_two_scales_rounded_down,
        "ops/test_float8.py::test_scales_to_nearest_as_ml_dtypes_and_never_down_otherwise",
    ),
    Guard(
        fp8.scales_forgotten_in_the_weight_gradient,
        "ops/test_fp8_linear.py::test_all_three_products_are_the_emulated_ones",
        ("V3",),
    ),
    Guard(
        fp8.weight_gradient_in_the_tiles_of_the_forward_pass,
        "ops/test_fp8_linear.py::test_all_three_products_are_the_emulated_ones",
        ("V3",),
    ),
    Guard(
        fp8.promotion_forgotten,
        "ops/test_fp8_accumulation.py::"
        "test_without_promotion_a_long_sum_is_wrong_by_per_cents_and_with_it_by_a_fraction_of_one",
    ),
    Guard(
        fp8.attention_output_in_e4m3,
        "layers/test_fp8_layers.py::test_the_linear_after_attention_takes_e5m6_with_powers_of_two",
        ("mla",),
    ),
    Guard(fp8.router_in_fp8, "layers/test_fp8_layers.py::test_the_papers_exceptions_stay_in_full_precision"),
    Guard(fp8.master_weights_in_fp8, "layers/test_fp8_layers.py::test_updates_below_a_step_of_the_format_add_up"),
    # Of learning from rewards.
    Guard(
        policy.divergence_as_a_difference_of_logs,
        "ops/test_policy_loss.py::test_the_divergence_is_never_negative_and_on_average_that_of_kullback_and_leibler",
    ),
    Guard(
        policy.larger_term_in_the_clip,
        "ops/test_policy_loss.py::test_the_smaller_term_counts_so_that_only_what_went_far_enough_is_let_go",
    ),
    Guard(policy.group_numbers_lost, "ops/test_policy_loss.py::test_advantages_of_a_group_sum_to_zero"),
    Guard(
        policy.old_log_probabilities_with_gradient,
        "ops/test_policy_loss.py::test_in_the_first_step_the_loss_is_zero_and_its_gradient_is_not",
    ),
    Guard(policy.balancing_bias_moved_by_rollouts, "training/test_grpo.py::test_the_balancing_bias_stays_where_it_was"),
    Guard(
        policy.reward_read_behind_the_padding,
        "training/test_reward_model.py::test_answers_side_by_side_are_worth_what_each_is_alone",
        ("numpy",),
    ),
]
