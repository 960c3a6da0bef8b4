"""minids sft: a trained model learns from prompts and answers."""

from dataclasses import dataclass, field
from typing import Annotated

from minids.config.sft import SFTConfig
from minids.errors import refuse
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

    if options.resume and options.overwrite:
        raise refuse("overwrite", True, "deletes what --resume goes on from; say one of them")
    if options.resume:
        own = {"checkpoint": options.checkpoint, "data": options.data}
        asked = {n: own[n] if n in own else getattr(options.tuning, n) for n in given - {"out", "resume", "overwrite"}}
        learning = sft.resume(options.out, asked)
        say(f"Resuming {options.out} after step {learning.step} of {learning.steps}.")
    else:
        if not options.checkpoint:
            raise refuse("checkpoint", "", "fine-tuning begins from a trained model; say --checkpoint and its folder")
        if not options.data:
            raise refuse(
                "data", "", 'there is nothing to learn from; say --data and a file of {"prompt": …, "answer": …} lines'
            )
        learning = sft.start(options.out, options.checkpoint, options.data, options.tuning, say, options.overwrite)
    learning.run()
    say(f"Checkpoint (a Hugging Face folder): {latest_checkpoint(options.out)}")
    say(f"Write with it: minids chat --checkpoint {options.out}")
