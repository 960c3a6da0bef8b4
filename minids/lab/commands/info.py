"""minids info: what a model costs, from its configuration alone."""

import json
from dataclasses import dataclass

from minids.checkpoint.config_json import read_config
from minids.checkpoint.latest import resolved
from minids.config import ModelConfig
from minids.errors import MinidsError
from minids.terminal import fit, say


@dataclass(frozen=True)
class Options:
    """Parameters, cache, arithmetic and memory of a model, from its configuration alone."""

    preset: str | None = None
    """Name of a preset."""
    checkpoint: str | None = None
    """Or a run's folder or Hugging Face folder."""
    context: int | None = None
    """Tokens in the context, for the cache and for attention's arithmetic; 4,096, or the model's longest if that is less."""
    batch: int = 1
    """Sequences decoded side by side."""
    json: bool = False
    """Print JSON, with the formula and the source of every number."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.analysis.info import info as account
    from minids.lab.analysis.info_table import format_info

    preset, checkpoint = options.preset, options.checkpoint
    if (preset is None) == (checkpoint is None):
        raise MinidsError("info: give either --preset NAME or --checkpoint FOLDER")
    config = read_config(resolved(checkpoint)) if checkpoint is not None else ModelConfig.preset(str(preset))
    found = account(config, str(preset or checkpoint), context=options.context, batch=options.batch)
    say(json.dumps(found, indent=2) if options.json else fit(format_info(found)))
