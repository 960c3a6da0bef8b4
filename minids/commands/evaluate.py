"""minids evaluate: what a trained model can do, in numbers."""

import json
from dataclasses import dataclass
from typing import Any

from minids.terminal import say
from minids.words import table

SEVERAL_PROCESSES = True


@dataclass(frozen=True)
class Options:
    """Measure a trained model: bits per byte, its next guess, ends of lines, sums."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder with a tokenizer."""
    data: tuple[str, ...] = ()
    """Text whose held-out part is read, as for minids train; if not given that of the run, or the built-in corpus."""
    tokens: int = 32768
    """Tokens read of each domain, at most; as many as a validation pass of training reads."""
    json: bool = False
    """Print the numbers as JSON."""


def run(options: Options, given: set[str]) -> None:
    from minids.config import ParallelConfig
    from minids.parallel.group import process_group
    from minids.training.evaluate import evaluate

    found = evaluate(options.checkpoint, options.data, options.tokens, process_group(ParallelConfig()))
    say(json.dumps(found, indent=2, ensure_ascii=False) if options.json else in_words(found))


def in_words(found: dict[str, Any]) -> str:
    domains, endings = found["bits_per_byte"], found["line_endings"]
    rows = [
        (domain, f"{bits:.3f}", _percent(found["top1_accuracy"][domain]), _percent(endings.get(domain)))
        for domain, bits in domains.items()
    ]
    head = ("held-out text", "bits per byte", f"next {found['top1_unit']} right", "line endings right (chance: 33 %)")
    parts = [table(rows, head)]
    if found["exact_match"]:
        parts.append(table([(kind, _percent(share)) for kind, share in found["exact_match"].items()], ("exam", "right")))
    notes = [f"Not asked: {what}: {why}." for what, why in found["left_out"].items()]
    return "\n\n".join([*parts, *(["\n".join(filter(None, [found["note"], *notes]))] if found["note"] or notes else [])])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
