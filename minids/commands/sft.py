"""minids sft: a trained model learns from prompts and answers."""

from dataclasses import dataclass, field
from typing import Annotated

from minids.commands.options import asked_of_resumed, begins_from
from minids.config.sft import SFTConfig
from minids.terminal import say


@dataclass(frozen=True)
class Options:
    """Fine-tune a trained model on prompts with answers, and write it as a Hugging Face folder."""

    checkpoint: str = ""
    """The model to begin from: a run's folder, or any Hugging Face DeepSeek folder with a tokenizer."""
    data: str = ""
    """File of JSON lines, each {"prompt": …, "answer": …}; only answers are learned."""
    out: str = "runs/sft"
    """Folder of the run."""
    resume: bool = False
    """Continue the run in that folder from its newest checkpoint, with its own settings; --data says where its samples are
    now, if they have moved."""
    overwrite: bool = False
    """Begin anew in a folder that holds a run: its checkpoints are deleted."""
    tuning: Annotated[SFTConfig, "flat"] = field(default_factory=SFTConfig)


def run(options: Options, given: set[str]) -> None:
    from minids.checkpoint.latest import latest_checkpoint
    from minids.training import sft

    begins_from(options, "checkpoint", "data")
    if options.resume:
        learning = sft.resume(options.out, asked_of_resumed(options, given, options.tuning))
        say(f"Resuming {options.out} after step {learning.step} of {learning.steps}.")
    else:
        learning = sft.start(options.out, options.checkpoint, options.data, options.tuning, say, options.overwrite)
    learning.run()
    say(f"Checkpoint (a Hugging Face folder): {latest_checkpoint(options.out)}")
    say(f"Write with it: minids chat --checkpoint {options.out}")
