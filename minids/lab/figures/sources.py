"""Where figures take their numbers from: arithmetic, a trained run, the studies' results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import minids.lab.figures
from minids.checkpoint.latest import latest_checkpoint
from minids.errors import refuse
from minids.files import read_json
from minids.lab.figures.picture import Picture, Rows
from minids.lab.figures.style import write_bytes
from minids.lab.studies.store import kept

DEFAULT_RUN = "runs/tiny"
LARGEST = 64 << 20  # bytes of a kept file
KEPT = "runs/figures"
"""Where measured numbers are kept: a second drawing is of the same ones. Delete a file there to measure again."""

MADE = {
    "measurement": "measuring on this machine, which should have nothing else to do",
    "run, measured": "measuring the trained model on this machine, which should have nothing else to do",
}


class Sources:
    """Numbers for pictures. The run is trained when the first picture needs it, once; what is measured is kept."""

    def __init__(self, run: str = "", say: Callable[[str], None] = print, kept: str | Path = KEPT):
        self.given, self.say, self.kept = run, say, Path(kept)
        self._run = None

    def check(self, asked: Sequence[Picture]) -> None:
        """Refuse, before anything is drawn, a run that is not one."""
        for picture in asked:
            if (why := self.missing(picture)) and len(asked) < len(minids.lab.figures.PICTURES):
                raise refuse("name", picture.name, why)
        if self.given and any(_from_a_run(p) for p in asked) and latest_checkpoint(self.given) is None:
            raise refuse("run", self.given, "holds no trained model; give a folder that minids train wrote, or leave --run out")

    def missing(self, picture: Picture) -> str:
        """Why a picture cannot be drawn: the results of its study are not kept with this package. Empty if it can."""
        if not picture.source.startswith("study "):
            return ""
        name = picture.source.removeprefix("study ")
        return "" if kept(name).is_file() else f"needs the results of minids study {name}, which are not kept here yet"

    def rows(self, picture: Picture) -> Rows:
        """The rows of one picture."""
        asked = {"run": self.run()} if _from_a_run(picture) else {}
        if picture.source not in MADE:
            return picture.rows(**asked)
        path = self.kept / f"{picture.name}{'.' + fingerprint(asked['run']) if asked else ''}.json"
        if path.exists():
            return read_json(path, LARGEST)["rows"]
        self.say(f"        {MADE[picture.source]}; then kept in {path}")
        rows = picture.rows(**asked)
        try:
            self.kept.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refuse("kept", str(self.kept), f"cannot be made ({error.strerror})") from None
        write_bytes(path, json.dumps({"rows": rows}, allow_nan=False).encode())
        return rows

    def run(self) -> Path:
        """The folder of the trained run: the one given, or the default one, which is trained if it is not there."""
        if self._run is None:
            self._run = Path(self.given) if self.given else trained_run(Path(DEFAULT_RUN), self.say)
        return self._run


def _from_a_run(picture: Picture) -> bool:
    return picture.source.startswith("run")


def fingerprint(run: str | Path) -> str:
    """Eight letters that tell the weights of a run's newest checkpoint from any others."""
    checkpoint = latest_checkpoint(run)
    if checkpoint is None:
        raise refuse("run", str(run), "holds no trained model")
    found = hashlib.sha256()
    for path in sorted(checkpoint.glob("m*.safetensors")):
        found.update(path.read_bytes())
    return found.hexdigest()[:8]


def trained_run(folder: Path, say: Callable[[str], None] = print) -> Path:
    """The run in ``folder`` as it stands; if there is none, the tiny preset is trained into it first."""
    from minids.config import ModelConfig, TrainConfig
    from minids.training.run import Run

    if latest_checkpoint(folder) is None:
        say(f"Some figures look into a trained model: training the tiny preset into {folder}, some minutes …")
        run = Run.start(folder, ModelConfig.preset("tiny"), TrainConfig.preset("tiny"), ["builtin"], "tiny", say)
        run.run()
        if run.step < run.train.steps:
            raise KeyboardInterrupt  # a half-trained model is not what the captions speak of
    return folder
