"""minids sft: a trained model learns from prompts and answers."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from minids.config.sft import SFTConfig
from minids.errors import refuse
from minids.terminal import say


@dataclass(frozen=True)
class Options:
    """Fine-tune a trained model on prompts with answers, and write it as a Hugging Face folder."""

    checkpoint: str
    """The model to begin from: a run's folder, or any Hugging Face DeepSeek folder with a tokenizer."""
    data: str
    """File of JSON lines, each {"prompt": …, "answer": …}; only answers are learned."""
    out: str = "runs/sft"
    """Folder for the model, which must not be there yet."""
    tuning: Annotated[SFTConfig, "flat"] = field(default_factory=SFTConfig)


def run(options: Options, given: set[str]) -> None:
    from minids.checkpoint.model_folder import load, save
    from minids.training.samples import read_json_lines
    from minids.training.sft import sft

    if Path(options.out).exists():
        raise refuse("out", options.out, "is there already; choose a new folder")
    pairs = read_json_lines(options.data)
    model = load(options.checkpoint)
    if model.tokenizer is None:
        raise refuse("checkpoint", options.checkpoint, "has no tokenizer.json, so there is no way to read text for it")
    sft(model, pairs, say, **asdict(options.tuning))
    save(model, options.out)
    say(f"Model (a Hugging Face folder): {options.out}")
    say(f"Write with it: minids chat --checkpoint {options.out}")
