"""The web page in which a model computes: "type, and watch it think".

    minids page --checkpoint runs/tiny --out page.html
    minids.lab.page.show(model)          in a notebook's cell

``engine.js`` is minids/pico.py for one token after another; the other scripts are tokenizer, sampling and panels.
"""

import html

from minids.lab.page.build import build, write
from minids.lab.page.pack import Form
from minids.model import DeepSeekV3

__all__ = ["Cell", "build", "show", "write"]


class Cell:
    """A page as the output of a notebook's cell."""

    def __init__(self, page: str, height: int):
        self.page, self.height = page, height

    def __repr__(self) -> str:
        return "the page, which computes where the notebook runs"

    def _repr_html_(self) -> str:
        """A frame that holds the page itself; nothing is fetched."""
        style = f"box-sizing:border-box;width:100%;height:{self.height}px;border:1px solid #8884;border-radius:8px"
        return f'<iframe title="DeepSeek-V3 at work" style="{style}" srcdoc="{html.escape(self.page)}"></iframe>'


def show(model: DeepSeekV3, height: int = 900, weights: Form = "fp8", name: str = "DeepSeek-V3") -> Cell:
    """The page of ``model`` in a notebook's cell, ``height`` pixels high. The model needs a tokenizer."""
    return Cell(build(model, weights, name), height)
