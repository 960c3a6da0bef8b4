"""Learning from answers that were drawn: a model's own, of which only the good ones are kept, or a stronger model's.

rejection sampling    the model answers, what the reward likes is kept, and the model is fine-tuned on it (section 5.1 makes
                      V3's data so): the cheaper rival of GRPO, which nothing discourages
distillation          a teacher answers, and a student learns the answers, or what the teacher expects at each token
                      (section 5.4.1)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minids import arguments
from minids.config.sft import SFTConfig
from minids.errors import MinidsError, refuse
from minids.inference.generate import Prompt, Stop, checked_ending, prompt_ids
from minids.model import DeepSeekV3
from minids.terminal import say
from minids.training.printing import Say
from minids.training.rewards import Reward, checked
from minids.training.rollout import Rollouts, sample
from minids.training.samples import Sample
from minids.training.sft import tuned

ASKED_AT_ONCE = 32
"""Prompts answered side by side."""


def rejection_sampling(
    model: DeepSeekV3, prompts: Sequence[Prompt], reward: Reward, least: float = 1.0, group: int = 8, max_new_tokens: int = 64,
    temperature: float = 1.0, seed: int = 0, stop: Stop = (), say: Say = say, **settings: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Fine-tune ``model``, in place, on those of its own answers whose reward is at least ``least``; a line for each step.

    Arguments are those of ``minids.grpo`` and, as ``settings``, fields of ``SFTConfig``. Equal answers to a prompt count once.
    """
    arguments.number("least", least, least=-np.inf)
    config, asked = SFTConfig(seed=seed).replace(**settings), [prompt_ids(model, prompt) for prompt in prompts]
    kept: dict[tuple, Sample] = {}
    drawn = 0
    for r in _answers(model, asked, group, max_new_tokens, temperature, seed, stop):
        for row, (group_number, answer) in enumerate(zip(r.groups, r.answers, strict=True)):
            question = r.tokens[row, : int(np.flatnonzero(r.targets[row] >= 0)[0]) + 1]
            texts = (ids.tolist() if model.tokenizer is None else model.tokenizer.decode(ids) for ids in (question, answer))
            drawn += 1
            if checked(reward, *texts) >= least:
                found = Sample(np.concatenate([question, answer]), len(question))
                kept.setdefault((int(group_number), tuple(found.tokens.tolist())), found)
    if not kept:
        raise MinidsError(f"reward: none of {drawn} answers reached {least:g}, so there is nothing to learn from")
    say(f"{len(kept)} different answers of {drawn} reached {least:g}")
    return tuned(model, _fitting(list(kept.values()), config), config, say)


def distil(
    student: DeepSeekV3, teacher: DeepSeekV3, prompts: Sequence[Prompt], logits: bool = False, group: int = 1,
    max_new_tokens: int = 64, temperature: float = 1.0, seed: int = 0, stop: Stop = (), say: Say = say, **settings: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Have ``student`` learn, in place, the answers that ``teacher`` draws, or with ``logits`` what the teacher expects at each
    of their tokens. Both models have the same vocabulary. Other arguments are those of ``rejection_sampling``."""
    if student.config.vocab_size != teacher.config.vocab_size:
        sizes = f"a vocabulary of {student.config.vocab_size}"
        raise refuse("student", sizes, f"the teacher's is {teacher.config.vocab_size}; both must have the same tokens")
    arguments.switch("logits", logits)
    config, asked = SFTConfig(seed=seed).replace(**settings), [prompt_ids(teacher, prompt) for prompt in prompts]
    found = []
    for r in _answers(teacher, asked, group, max_new_tokens, temperature, seed, stop):
        for row, answer in enumerate(r.answers):
            question = r.tokens[row, : int(np.flatnonzero(r.targets[row] >= 0)[0]) + 1]
            found.append(Sample(np.concatenate([question, answer]), len(question)))
    return tuned(student, _fitting(found, config), config, say, teacher if logits else None)


def _answers(
    model: DeepSeekV3, asked: list[list[int]], group: int, most: int, temperature: float, seed: int, stop: Stop
) -> list[Rollouts]:
    """``group`` answers to every prompt, some prompts at a time."""
    if not asked:
        raise refuse("prompts", [], "must hold at least one prompt")
    arguments.whole("group", group, least=1)
    arguments.whole("seed", seed)
    ending, rng = checked_ending(model, arguments.whole("max_new_tokens", most, least=1), stop), np.random.default_rng(seed)
    longest = max(map(len, asked)) + most
    if longest > model.config.max_position_embeddings:
        context = f"the context is {model.config.max_position_embeddings}; shorten it, or lower max_new_tokens"
        raise refuse("prompts", f"a prompt with its answer of {longest} tokens", context)
    parts = (asked[i : i + ASKED_AT_ONCE] for i in range(0, len(asked), ASKED_AT_ONCE))
    return [sample(model, part, group, most, temperature, ending, rng) for part in parts]


def _fitting(samples: list[Sample], config: SFTConfig) -> list[Sample]:
    longest = max(len(each.tokens) for each in samples) - 1
    if longest > config.context_length:
        raise refuse("context_length", config.context_length, f"the longest answer with its prompt needs {longest}")
    return samples
