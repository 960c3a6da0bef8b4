"""minids reward-model: a copy of a trained model learns to say what an answer is worth."""

from dataclasses import dataclass, field
from typing import Annotated

from minids.commands.options import asked_of_resumed, begins_from
from minids.config.reward import RewardConfig
from minids.terminal import say


@dataclass(frozen=True)
class Options:
    """Train a reward model, a copy of a trained model with a head of one number, on pairs of answers of which one was
    preferred."""

    checkpoint: str = ""
    """The model to begin from: a run's folder, or any Hugging Face DeepSeek folder with a tokenizer."""
    data: str = ""
    """File of JSON lines, each {"prompt": …, "chosen": …, "rejected": …}."""
    out: str = "runs/reward"
    """Folder of the run."""
    resume: bool = False
    """Continue the run in that folder from its newest checkpoint, with its own settings; --data says where its pairs are
    now, if they have moved."""
    overwrite: bool = False
    """Begin anew in a folder that holds a run: its checkpoints are deleted."""
    tuning: Annotated[RewardConfig, "flat"] = field(default_factory=RewardConfig)


def run(options: Options, given: set[str]) -> None:
    from minids.checkpoint.latest import latest_checkpoint
    from minids.training import preferences

    begins_from(options, "checkpoint", "data")
    if options.resume:
        learning = preferences.resume(options.out, asked_of_resumed(options, given, options.tuning))
        say(f"Resuming {options.out} after step {learning.step} of {learning.steps}.")
    else:
        learning = preferences.start(options.out, options.checkpoint, options.data, options.tuning, say, options.overwrite)
    learning.run()
    say(f"Reward model: {latest_checkpoint(options.out)}")
    say(f"Learn from it: minids grpo --checkpoint {options.checkpoint or 'DIR'} --reward-model {options.out}")
