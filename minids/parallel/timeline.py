"""Who worked when: the actions of a pipeline on a timeline, and the recording of a pipeline that was executed."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from minids import files
from minids.errors import MinidsError
from minids.parallel.pipeline_orders import check, devices

KINDS = "FBIW"
LARGEST = 64 << 20  # bytes of a recording


class Slot(NamedTuple):
    """One action on the timeline. The two of an overlapped pair have the same start and end."""

    device: int
    start: float
    end: float
    kind: str  # F, B, I or W
    microbatch: int
    direction: int
    stage: int
    overlapped: bool


class Recording(NamedTuple):
    """An executed step. Times are seconds since all devices were ready. Nothing overlaps here: of a pair that DualPipe would
    overlap the forward comes first."""

    schedule: str
    stages: int
    microbatches: int
    processes: int  # one per device; or one, whose devices took turns
    cores: int  # of the machine, that the processes could use
    model: str  # what was trained
    shape: tuple[int, int]  # (B, T) of a micro-batch
    slots: list[Slot]  # by device, then by start
    busy: list[float]  # of each slot: seconds of processor time, without what other processes took meanwhile

    @property
    def devices(self) -> int:
        return devices(self.schedule, self.stages)

    def save(self, path: Path) -> None:
        kept = self._asdict() | {
            "slots": [[*slot[:1], round(slot.start, 6), round(slot.end, 6), *slot[3:]] for slot in self.slots]
        }
        kept["busy"] = [round(seconds, 6) for seconds in self.busy]
        files.write(path, json.dumps(kept).encode() + b"\n")

    @classmethod
    def load(cls, path: str | Path) -> "Recording":
        """What ``save`` wrote. Raises ``MinidsError`` for any other file."""
        found: dict[str, Any] = files.read_json(Path(path), LARGEST)
        try:
            slots = [Slot(int(s[0]), float(s[1]), float(s[2]), str(s[3]), int(s[4]), int(s[5]), int(s[6]), bool(s[7]))
                     for s in found.pop("slots")]  # fmt: skip
            batch, length = found.pop("shape")
            recording = cls(**found, shape=(int(batch), int(length)), slots=slots)
            check(recording.schedule, recording.stages, recording.microbatches)
            known = set(range(recording.devices))
            if not slots or len(slots) != len(recording.busy) or {slot.device for slot in slots} != known:
                raise ValueError("slots of some devices are missing")
            if any(slot.kind not in tuple(KINDS) or not 0 <= slot.start <= slot.end for slot in slots):
                raise ValueError("a slot is of no kind, or ends before it starts")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise MinidsError(f"{path}: is no recording of a pipeline ({error})") from None
        return recording
