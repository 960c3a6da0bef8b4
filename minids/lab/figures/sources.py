"""Where figures take their numbers from: arithmetic, a trained run, the studies' results."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from minids.checkpoint.latest import latest_checkpoint
from minids.errors import refuse
from minids.files import make_writable, read_json, write
from minids.lab.figures.picture import Picture, Rows
from minids.terminal import say
from minids.training.run_folder import RunFolder

DEFAULT_RUN = "runs/tiny"
LARGEST = 64 << 20  # bytes of a kept file
KEPT = "runs/figures"  # measured numbers: a second drawing is of the same ones; delete a file there to measure again


class Sources:
    """Numbers for pictures. Where no ``run`` is given, it is the one in runs/tiny, trained where missing if ``train``."""

    def __init__(self, run: str = "", say: Callable[[str], None] = say, kept: str | Path = KEPT, train: bool = False):
        self.given, self.say, self.kept, self.train = run, say, Path(kept), train
        self._run = None

    def check(self, asked: Sequence[Picture]) -> None:
        """Refuse, before anything is drawn, a run that is not one."""
        if self.given and any(p.source.startswith("run") for p in asked) and latest_checkpoint(self.given) is None:
            raise refuse("run", self.given, "holds no trained model; give a folder that minids train wrote, or leave --run out")

    def rows(self, picture: Picture) -> Rows:
        """The rows of one picture."""
        asked = {"run": self.run()} if picture.source.startswith("run") else {}
        if picture.source == "grpo" and self.given and RunFolder(Path(self.given)).description().get("kind") == "grpo":
            asked = {"run": self.given}
        if picture.source != "run, measured":
            return picture.rows(**asked)
        path = self.kept / f"{picture.name}.{fingerprint(asked['run'])}.json"
        if path.exists():
            return read_json(path, LARGEST)["rows"]
        self.say(f"        measuring on this machine, which should have nothing else to do; then kept in {path}")
        make_writable(self.kept)  # before the minutes of measuring
        rows = picture.rows(**asked)
        write(path, json.dumps({"rows": rows}, allow_nan=False).encode())
        return rows

    def run(self) -> Path:
        """The folder of the trained run: the one given, or the default one."""
        if self._run is None:
            self._run = Path(self.given or DEFAULT_RUN)
            if self.train and not self.given and latest_checkpoint(self._run) is None:
                _train(self._run, self.say)
        return self._run


def fingerprint(run: str | Path) -> str:
    """Eight letters that tell the weights of a run's newest checkpoint from any others."""
    checkpoint = latest_checkpoint(run)
    if checkpoint is None:
        raise refuse("run", str(run), "holds no trained model")
    found = hashlib.sha256()
    for path in sorted(checkpoint.glob("m*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()[:8]


def _train(folder: Path, say: Callable[[str], None]) -> None:
    """Train the tiny preset into ``folder``."""
    from minids.config import ModelConfig, TrainConfig
    from minids.training.run import Run

    say(f"Some figures look into a trained model: training the tiny preset into {folder}, some minutes …")
    run = Run.start(folder, ModelConfig.preset("tiny"), TrainConfig.preset("tiny"), ["builtin"], "tiny", say)
    run.run()
    if run.step < run.train.steps:
        raise KeyboardInterrupt  # a half-trained model is not what the captions speak of
