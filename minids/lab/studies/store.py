"""Where the runs of a study are kept, and the results that are made of them.

    OUT/runs/ARM.seed0.1f0c9a2e.json      one finished run; the last part is a hash of everything that was asked of it
    OUT/results.json                      command, versions, configuration, every run, mean and spread of every number

A run is written whole or not at all, so a study that was stopped goes on with what is missing; one that asks for something else
(more steps, another text, an arm that has changed) finds other names and never takes an old run for a new one.
"""

import hashlib
import json
import platform
import statistics
from importlib import import_module, resources
from pathlib import Path

from minids.errors import MinidsError
from minids.files import read_json, write
from minids.lab.studies.study import Job, Outcome, Study, Summary
from minids.processor import processor

_LARGEST = 64 << 20  # bytes


class Store:
    """The finished runs of one study in one folder."""

    def __init__(self, folder: str | Path, name: str, study: Study):
        self.folder, self.name, self.study = Path(folder), name, study

    def path(self, job: Job) -> Path:
        digest = hashlib.sha256(json.dumps(self._asked(job), sort_keys=True).encode()).hexdigest()[:8]
        plain = "".join(c if c.isalnum() or c in "-._" else "_" for c in job.arm)
        return self.folder / "runs" / f"{plain}.seed{job.seed}.{digest}.json"

    def read(self, job: Job) -> dict | None:
        """What a finished run gave; None where it is still to be made."""
        path = self.path(job)
        if not path.exists():
            return None
        found = read_json(path, _LARGEST)
        if found.get("asked") != self._asked(job):
            raise MinidsError(f"{path}: is not what its name says; delete it, and the run is made again")
        return found

    def write(self, job: Job, outcome: Outcome | str, seconds: float) -> dict:
        """Keep a finished run; ``outcome`` is the reason where it failed."""
        found = {"asked": self._asked(job), "seconds": round(seconds, 2)}
        if isinstance(outcome, str):
            found["failed"] = outcome
        else:
            found |= {"numbers": outcome.numbers, "curves": outcome.curves, "details": outcome.details}
        _write(self.path(job), json.dumps(found, allow_nan=False))
        return found

    def _asked(self, job: Job) -> dict:
        asked = {"study": self.name, "arm": job.arm, "seed": job.seed, "steps": job.steps, "data": list(job.data)}
        if job.threads != 1:
            asked["threads"] = job.threads
        return json.loads(json.dumps(asked | {"settings": self.study.arms[job.arm], "common": self.study.common}))


def collected(store: Store, jobs: list[Job], command: str) -> dict:
    """The results of finished runs: what ``results.json`` holds. Runs that failed are listed and left out of the means."""
    study = store.study
    arms: dict[str, dict] = {}
    for job in jobs:
        found = store.read(job)
        arm = arms.setdefault(job.arm, {"settings": study.arms[job.arm], "summary": {}, "details": {}, "runs": []})
        run = {"seed": job.seed, "seconds": found["seconds"]}
        if "failed" in found:
            arm["runs"].append(run | {"failed": found["failed"]})
            continue
        arm["details"] = arm["details"] or _short(found["details"])
        arm["runs"].append(run | {"numbers": _short(found["numbers"], 7), "curves": _short(found["curves"])})
    for arm in arms.values():
        arm["summary"] = {name: summary._asdict() for name, summary in summaries(arm["runs"]).items()}
    return {
        "study": store.name,
        "question": study.question,
        "command": command,
        "seeds": sorted({job.seed for job in jobs}),
        "steps": jobs[0].steps,
        "data": list(jobs[0].data),
        "threads": jobs[0].threads,
        "versions": versions(),
        "seconds": round(sum(run["seconds"] for arm in arms.values() for run in arm["runs"])),
        "common": study.common,
        "findings": [finding._asdict() for finding in _findings(study, arms)],
        "arms": arms,
    }


def summaries(runs: list[dict]) -> dict[str, Summary]:
    """Number → mean, spread and values over those runs that have it."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.get("numbers", {}).items():
            values.setdefault(name, []).append(value)
    return {
        name: Summary(statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else 0.0, tuple(v)) for name, v in values.items()
    }


def write_results(path: Path, found: dict) -> None:
    """Write results as JSON with one line per run, so that they are small and a change can be read."""
    lines = ["{", *(f" {json.dumps(key)}: {_dumped(value)}," for key, value in found.items() if key != "arms"), ' "arms": {']
    arms = []
    for name, arm in found["arms"].items():
        runs = ",\n".join(f"    {_dumped(run)}" for run in arm["runs"])
        rest = "".join(f'   "{key}": {_dumped(arm[key])},\n' for key in ("settings", "summary", "details"))
        arms.append(f'  {json.dumps(name)}: {{\n{rest}   "runs": [\n{runs}\n   ]\n  }}')
    lines.append(",\n".join(arms) + "\n }\n}\n")
    _write(path, "\n".join(lines))


def results(name: str) -> dict:
    """What the full run of a study gave, as kept with the package: the same dictionary that ``results.json`` holds."""
    from minids.lab.studies.registry import study  # which imports the studies, and those this module

    study(name)
    path = kept(name)
    if not path.is_file():
        raise MinidsError(f"results: the full run of {name} is not kept with this package; run minids study {name}")
    return read_json(path, _LARGEST)


def kept(name: str) -> Path:
    """Where the results of the full run are kept in the package."""
    return Path(str(resources.files("minids.lab.studies"))) / "results" / f"{name}.json"


def versions() -> dict[str, str]:
    """What computed the results."""
    from minids.backend import backend_name

    found = {"minids": import_module("minids").__version__, "python": platform.python_version()}
    for module in ("numpy", "numba") if backend_name() == "numba" else ("numpy",):
        found[module] = import_module(module).__version__
    machine = f"{platform.system()} {platform.machine()}"
    return found | {"machine": machine, "processor": processor().model or platform.processor()}


def _findings(study: Study, arms: dict[str, dict]) -> list:
    """A study's own conclusions, once every arm has every run: seeds are compared in pairs."""
    if any("failed" in run for arm in arms.values() for run in arm["runs"]):
        return []
    found = {name: {key: Summary(**value) for key, value in arm["summary"].items()} for name, arm in arms.items()}
    return study.findings(found) if found.keys() == study.arms.keys() and all(found.values()) else []


def _short(value, digits: int = 5):
    """Numbers to a few digits: what differs behind them is no result."""
    if isinstance(value, dict):
        return {key: _short(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(item, digits) for item in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def _dumped(value) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MinidsError(f"{path.parent}: cannot be written to ({error.strerror}); choose another folder") from None
    write(path, text.encode())
