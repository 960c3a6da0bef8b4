"""A study's results as text."""

from __future__ import annotations

from minids.lab.studies.study import Job, Study, Summary


def one_line(study: Study, job: Job, found: dict) -> str:
    """One finished run."""
    if "failed" in found:
        return f"{job.arm}, seed {job.seed}: failed: {found['failed']} ({found['seconds']:.0f} s)"
    numbers = ", ".join(f"{name} {found['numbers'][name]:.4g}" for name in study.shown if name in found["numbers"])
    return f"{job.arm}, seed {job.seed}: {numbers} ({found['seconds']:.0f} s)"


def table(study: Study, results: dict) -> str:
    """Every arm with the mean and spread of the study's main numbers, then the findings."""
    rows = [["arm", *(name.replace("_", " ") for name in study.shown)]]
    for name, arm in results["arms"].items():
        cells = [str(Summary(**arm["summary"][number])) if number in arm["summary"] else "–" for number in study.shown]
        failed = sum("failed" in run for run in arm["runs"])
        rows.append([name + (f" ({failed} of {len(arm['runs'])} failed)" if failed else ""), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "─" * len(lines[0]))
    seeds = results["seeds"]
    lines += ["", f"Mean ± standard deviation over {len(seeds)} seed{'s' * (len(seeds) != 1)}, {results['steps']} steps each."]
    modules = {name: version for name, version in results["versions"].items() if name not in ("machine", "processor")}
    computed = " ".join(f"{name} {version}" for name, version in modules.items())
    where = ", ".join(filter(None, (results["versions"]["machine"], results["versions"].get("processor", ""))))
    threads = results.get("threads", 1)
    lines.append(f"{computed}; {where}; {threads} thread{'s' * (threads != 1)} a run.")
    lines += study.remarks(results)
    for finding in results["findings"]:
        lines.append(f"{'yes' if finding['holds'] else 'NO '}  {finding['claim']}: {finding['numbers']}")
    return "\n".join(lines)
