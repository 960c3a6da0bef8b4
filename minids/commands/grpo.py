"""minids grpo: a trained model learns from rewards."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from minids.commands.options import asked_of_resumed, begins_from
from minids.config.policy import PolicyConfig
from minids.terminal import say

SEVERAL_PROCESSES = True


@dataclass(frozen=True)
class Options:
    """Have a trained model learn from rewards (GRPO): it answers, and what was right becomes likelier."""

    checkpoint: str = ""
    """The model to begin from: a run's folder, or any Hugging Face DeepSeek folder with a tokenizer."""
    task: Literal["sums", "formatted-sums"] = "sums"
    """What is asked and rewarded: two-digit sums as the built-in corpus words them, 1 for a right result; or 0.1 more for an
    answer that has the form of a worked sum."""
    reward_model: str = ""
    """Folder of a reward model (minids reward-model): it says what the answers to the task's questions are worth, in the place
    of the task's own rule, which is only measured."""
    out: str = "runs/grpo"
    """Folder of the run."""
    resume: bool = False
    """Continue the run in that folder from its newest checkpoint, with its own settings."""
    overwrite: bool = False
    """Begin anew in a folder that holds a run: its checkpoints are deleted."""
    policy: Annotated[PolicyConfig, "flat"] = field(default_factory=lambda: PolicyConfig(max_new_tokens=40))


def run(options: Options, given: set[str]) -> None:
    from minids.checkpoint.latest import latest_checkpoint
    from minids.config import ParallelConfig
    from minids.parallel.group import process_group
    from minids.training import grpo

    group = process_group(ParallelConfig())
    begins_from(options, "checkpoint")
    if options.resume:
        learning = grpo.resume(options.out, asked_of_resumed(options, given, options.policy), say, group)
        say(f"Resuming {options.out} after step {learning.step} of {learning.config.steps}.")
    else:
        c = options.policy
        how = options.overwrite, options.reward_model, group
        learning = grpo.start(options.out, options.checkpoint, options.task, c, say, *how)
        say(f"Learning {options.task} from {options.checkpoint}, into {options.out}:")
        say(f"{c.steps} steps of {c.questions} questions with {c.group} answers each")
    learning.run()
    say(f"Checkpoint (a Hugging Face folder): {latest_checkpoint(options.out)}")
    say(f"Write with it: minids chat --checkpoint {options.out}; measure it: minids evaluate --checkpoint {options.out}")
