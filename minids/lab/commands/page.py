"""minids page: a web page in which a trained model computes."""

from dataclasses import dataclass
from typing import Literal

from minids.checkpoint.model_folder import load, save
from minids.errors import refuse
from minids.terminal import say


@dataclass(frozen=True)
class Options:
    """Put a trained model into one HTML file in which it computes: type, and watch it think."""

    checkpoint: str
    """A run's folder, or any Hugging Face DeepSeek folder of a few megabytes."""
    out: str = "page.html"
    """The file to write. It needs nothing else: no network, no server, no other file."""
    weights: Literal["fp8", "float16"] = "fp8"
    """fp8: E4M3 codes with one scale per 128 × 128, as DeepSeek-V3 is released; float16: twice as large and nearer to what was
    trained."""
    folder: str = ""
    """Also write the model as a Hugging Face folder with the page's weights in FP8, to be committed beside it."""
    open: bool = False
    """Show it in the browser."""


def run(options: Options, given: set[str]) -> None:
    from minids.lab.page import write

    if options.folder and options.weights != "fp8":
        raise refuse("folder", options.folder, f"is written in FP8, and --weights is {options.weights}")
    size = write(options.checkpoint, options.out, options.weights)
    say(f"{options.out}: {size / 1e6:.2f} MB, weights as {options.weights}; open it in any browser, it needs no network")
    if options.folder:
        save(load(options.checkpoint), options.folder, "fp8")
        say(f"{options.folder}: the same weights for minids and for others")
    if options.open:
        import webbrowser
        from pathlib import Path

        webbrowser.open(Path(options.out).resolve().as_uri())
