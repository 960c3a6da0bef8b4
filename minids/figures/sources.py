"""Where figures take their numbers from: arithmetic, a trained run, the studies' results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from minids.checkpoint.latest import latest_checkpoint
from minids.errors import refuse
from minids.figures.picture import Picture, Rows

DEFAULT_RUN = "runs/tiny"


class Sources:
    """Numbers for pictures. The run is trained when the first picture needs it, once."""

    def __init__(self, run: str = "", say: Callable[[str], None] = print):
        self.given, self.say = run, say
        self._run = None

    def check(self, asked: Sequence[Picture]) -> None:
        """Refuse, before anything is drawn, a run that is not one."""
        if self.given and any(p.source == "run" for p in asked) and latest_checkpoint(self.given) is None:
            raise refuse("run", self.given, "holds no trained model; give a folder that minids train wrote, or leave --run out")

    def rows(self, picture: Picture) -> Rows:
        """The rows of one picture."""
        if picture.source == "run":
            return picture.rows(run=self.run())
        return picture.rows()

    def run(self) -> Path:
        """The folder of the trained run: the one given, or the default one, which is trained if it is not there."""
        if self._run is None:
            self._run = Path(self.given) if self.given else trained_run(Path(DEFAULT_RUN), self.say)
        return self._run


def trained_run(folder: Path, say: Callable[[str], None] = print) -> Path:
    """The run in ``folder`` as it stands; if there is none, the tiny preset is trained into it first."""
    from minids.presets import model_preset, train_preset
    from minids.training.trainer import Trainer

    if latest_checkpoint(folder) is None:
        say(f"Some figures look into a trained model: training the tiny preset into {folder}, some minutes …")
        trainer = Trainer.start(folder, model_preset("tiny"), train_preset("tiny"), ["builtin"], "tiny", say)
        trainer.run()
        if trainer.step < trainer.train.steps:
            raise KeyboardInterrupt  # a half-trained model is not what the captions speak of
    return folder
