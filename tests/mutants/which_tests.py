"""Which tests can notice a mutant: those that run its line, cheapest first; measured once with ``coverage``."""

from __future__ import annotations

import ast
import hashlib
import json
import time
from collections import defaultdict
from pathlib import Path


class Watch:
    """A pytest plugin that notes for each test the lines of the package that it runs, and how long it takes."""

    def __init__(self, root: Path):
        import coverage

        self.root, self.seconds, self.failed = root, defaultdict(float), set()
        self.coverage = coverage.Coverage(data_file=None, source=[str(root / "minids")], config_file=False)

    def pytest_sessionstart(self):
        self.coverage.start()

    def pytest_runtest_logstart(self, nodeid, location):
        self.began = time.process_time()  # neighbours do not count
        self.coverage.switch_context(nodeid.split("[")[0])

    def pytest_runtest_logfinish(self, nodeid, location):
        self.seconds[nodeid.split("[")[0]] += time.process_time() - self.began

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid.split("[")[0])

    def write(self, file: Path) -> None:
        self.coverage.stop()
        data, lines, sources = self.coverage.get_data(), {}, {}
        tests = sorted(self.seconds)
        number = {test: index for index, test in enumerate(tests)}
        for source in sorted(data.measured_files()):
            path = Path(source).relative_to(self.root).as_posix()
            sources[path] = _hash(Path(source))
            lines[path] = {
                line: sorted(number[test] for test in contexts if test in number)
                for line, contexts in data.contexts_by_lineno(source).items()
            }
        kept = {"tests": tests, "seconds": [self.seconds[test] for test in tests], "failed": sorted(self.failed)}
        file.write_text(json.dumps({**kept, "lines": lines, "sources": sources}))


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


class Measured:
    """What ``Watch`` wrote: which tests run a line."""

    def __init__(self, root: Path, file: Path):
        known = json.loads(file.read_text())
        self.root, self.names, self.failed = root, known["tests"], set(known["failed"])
        self.seconds = dict(zip(self.names, known["seconds"], strict=True))
        self.lines, self.sources = known["lines"], known["sources"]

    def of_line(self, path: str, line: int, seconds: float) -> tuple[list[list[str]], int]:
        """Batches of tests, to be run one after the other until one fails, and how many more there are than ``seconds`` allow:
        the mirrored file's, then all others that run the line, the quickest first. Where it is compiled, or run by none, those
        that run any line of the file or of its users; of a kernel first the few that run the line as Python."""
        running = set(self.lines.get(path, {}).get(str(line), ()))
        covering, kernel = set(running), path.startswith("minids/kernels/")
        if kernel or not running or self.sources.get(path) != _hash(self.root / path):
            for user in users(self.root, path) if kernel else {path}:
                covering.update(test for tests in self.lines.get(user, {}).values() for test in tests)
        found = {self.names[test] for test in covering} - self.failed
        mirrored = {test for test in found if self._mirrors(test, path)}
        as_python = {self.names[test] for test in running} & mirrored if kernel else set()
        batches: list[list[str]] = [[], [], [], []]
        spent, left = 0.0, 0
        for test in sorted(found, key=lambda test: (test not in as_python, test not in mirrored, self.seconds[test])):
            if spent and spent + self.seconds[test] > seconds:
                left += 1
                continue
            batch = 0 if test in as_python else 1 if test in mirrored else 2 if spent < 6 else 3  # starting one costs a second
            batches[batch].append(test)
            spent += self.seconds[test]
        for batch in batches:  # one file after the other, for what its tests share; the quickest first
            cost = {test.partition("::")[0]: 0.0 for test in batch}
            for test in batch:
                cost[test.partition("::")[0]] += self.seconds[test]
            batch.sort(key=lambda test: (cost[test.partition("::")[0]], test.partition("::")[0], self.seconds[test]))
        return [batch for batch in batches if batch], left

    @staticmethod
    def _mirrors(test: str, path: str) -> bool:
        """Whether a test stands in the file that mirrors this module."""
        file, module = Path(test.partition("::")[0]), Path(path)
        return module.stem.strip("_") in file.stem and module.parent.name in (*file.parent.parts, "minids")


def users(root: Path, path: str) -> set[str]:
    """This module of ``kernels`` or ``ops``, the kernels that import it, over any number of steps, and loaders of one."""
    files = {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in (root / "minids").rglob("*.py")}
    imports = {}
    for file in (file for file in files if file.startswith("minids/kernels/")):
        found = {node.module for node in ast.walk(ast.parse(files[file])) if isinstance(node, ast.ImportFrom)}
        imports[file] = {f"{name.replace('.', '/')}.py" for name in found if name}
    reached = {path}
    while more := {file for file, used in imports.items() if used & reached} - reached:
        reached |= more
    named = [kernel.removesuffix(".py").replace("/", ".") for kernel in reached if kernel.startswith("minids/kernels/")]
    return reached | {file for file, text in files.items() if any(f'"{name}"' in text for name in named)}
