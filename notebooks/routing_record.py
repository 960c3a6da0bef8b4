"""Keep what the routers said of the notebooks' sentence while their model was trained: notebooks/model/routing.npz.

    python notebooks/routing_record.py runs/pocket

``runs/pocket`` is a run of the command in notebooks/model/README.md. Its settings are read, and its first ``UNTIL`` steps are
made once more, with a look at the routers at every ``EVERY``-th: one minute of one core. (The built-in text is that of your
Python, so another Python gives other numbers.) The last look is at the notebooks' model itself, after all steps.

    steps (S,)   scores (S, blocks, T, E) float16   bias (S, blocks, E) float32
"""

import json
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from minids import ModelConfig, TrainConfig
from minids.files import write
from minids.lab import notebook
from minids.lab.figures.trained import through
from minids.model import DeepSeekV3
from minids.training.run import Run

OUT = Path(__file__).parent / "model" / "routing.npz"
EVERY, UNTIL = 25, 200


class Looks:
    """What the routers said, step by step."""

    def __init__(self):
        self.steps: list[int] = []
        self.scores: list[np.ndarray] = []
        self.bias: list[np.ndarray] = []

    def add(self, step: int, model: DeepSeekV3) -> None:
        walked = [at for at in through(model, notebook.read(model).tokens) if at.routing is not None]
        self.steps.append(step)
        self.scores.append(np.stack([at.routing.scores for at in walked]).astype(np.float16))  # (blocks, T, E)
        self.bias.append(np.stack([at.block.moe.bias for at in walked]))  # (blocks, E), a copy

    def save(self, out: Path) -> None:
        arrays = {"steps": np.array(self.steps), "scores": np.array(self.scores), "bias": np.array(self.bias)}
        write(out, lambda file: np.savez_compressed(file, **arrays))


def main(run: Path, out: Path = OUT) -> None:
    described, looks = json.loads((run / "run.json").read_text(encoding="utf-8")), Looks()
    config, train = ModelConfig(**described["model"]), TrainConfig(**described["train"])

    def look(run: Run):
        if run.step % EVERY == 0:
            looks.add(run.step, run.model)
        if run.step == UNTIL:
            run.ask_to_stop()
        return nullcontext()

    with tempfile.TemporaryDirectory() as folder:
        again = Run.start(Path(folder, "run"), config, train.replace(eval_every=0), described["data"], described["preset"])
        again.observers.append(look)
        again.run()
    looks.add(train.steps, notebook.model())
    looks.save(out)
    print(f"{out.name}: {len(looks.steps)} looks, {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1], "run.json").exists():
        print("routing_record.py: give the folder of the run that notebooks/model/README.md describes", file=sys.stderr)
        sys.exit(2)
    main(Path(sys.argv[1]))
