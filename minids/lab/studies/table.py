"""A study's results as text."""

from minids import words
from minids.lab.studies.study import Job, Study, Summary


def one_line(study: Study, job: Job, found: dict) -> str:
    """One finished run."""
    if "failed" in found:
        return f"{job.arm}, seed {job.seed}: failed: {found['failed']} ({found['seconds']:.0f} s)"
    numbers = ", ".join(f"{name} {found['numbers'][name]:.4g}" for name in study.shown if name in found["numbers"])
    return f"{job.arm}, seed {job.seed}: {numbers} ({found['seconds']:.0f} s)"


def table(study: Study, results: dict) -> str:
    """Every arm with the mean and spread of the study's main numbers, then the findings."""
    rows = []
    for name, arm in results["arms"].items():
        cells = [str(Summary(**arm["summary"][number])) if number in arm["summary"] else "–" for number in study.shown]
        failed = sum("failed" in run for run in arm["runs"])
        rows.append([name + (f" ({failed} of {len(arm['runs'])} failed)" if failed else ""), *cells])
    head = ["arm", *(name.replace("_", " ") for name in study.shown)]
    seeds, versions, threads = results["seeds"], results["versions"], results.get("threads", 1)
    computed = " ".join(f"{name} {version}" for name, version in versions.items() if name not in ("machine", "processor"))
    where = ", ".join(filter(None, (versions["machine"], versions.get("processor", ""))))
    lines = [
        words.table(rows, head, align="l", rule=True),
        "",
        f"Mean ± standard deviation over {len(seeds)} seed{'s' * (len(seeds) != 1)}, {results['steps']} steps each.",
        "Differences are paired by seed, in brackets their 95 % interval: where it holds zero, a claim is undecided.",
        f"{computed}; {where}; {threads} thread{'s' * (threads != 1)} a run.",
        *study.remarks(results),
    ]
    for finding in results["findings"]:
        verdict = {True: "yes", False: "NO", None: "undecided"}[finding["holds"]]
        lines.append(f"{verdict:<9}  {finding['claim']}: {finding['numbers']}")
    return "\n".join(lines)
