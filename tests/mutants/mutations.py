"""The mistakes that are put in: every single change that a slip of the hand could make to one expression or statement."""

from __future__ import annotations

import ast
import difflib
import hashlib
import random
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import NamedTuple

_SWAPPED = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Pow: "*", ast.FloorDiv: "*", ast.Mod: "//",
    ast.LShift: ">>", ast.RShift: "<<", ast.BitAnd: "|", ast.BitOr: "&", ast.BitXor: "|",
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in", ast.And: "or", ast.Or: "and",
}  # fmt: skip
_WRITTEN = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.FloorDiv: "//", ast.Mod: "%",
    ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in", ast.And: "and", ast.Or: "or",
}  # fmt: skip
_NAMES = {
    "float32": "float64", "float64": "float32", "int64": "int32", "uint32": "int32",
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "argmax": "argmin",
    "floor": "ceil", "ceil": "floor", "any": "all", "all": "any", "zeros": "ones", "ones": "zeros", "cos": "sin", "sin": "cos",
}  # fmt: skip
_LEAVES = (ast.Name, ast.Constant, ast.Call, ast.Subscript, ast.Attribute, ast.Tuple)


class Mutant(NamedTuple):
    """One changed stretch of one file."""

    path: str  # from the root of the repository
    line: int
    kind: str
    start: int  # bytes
    end: int
    text: str  # what stands there instead

    @property
    def name(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:10]

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.text.encode() + source[self.end :]

    def diff(self, source: bytes) -> str:
        before, after = (text.decode().splitlines(keepends=True) for text in (source, self.applied(source)))
        return "".join(difflib.unified_diff(before, after, self.path, self.path, n=0))


def sample(root: Path, paths: list[str], count: int, seed: int) -> list[Mutant]:
    """``count`` mutants of these files, as many of each kind as there are; the same seed and sources give the same ones."""
    kinds: dict[str, list[Mutant]] = {}
    for path in sorted(paths):
        for mutant in mutants(path, (root / path).read_bytes()):
            kinds.setdefault(mutant.kind, []).append(mutant)
    rng = random.Random(seed)
    for found in kinds.values():
        rng.shuffle(found)
    turns = zip_longest(*(kinds[kind] for kind in sorted(kinds)))
    return [mutant for turn in turns for mutant in turn if mutant][:count]


def mutants(path: str, source: bytes) -> Iterator[Mutant]:
    """Every mutant of a file that is another program and can be parsed."""
    original = ast.dump(ast.parse(source))
    for node, kind, start, end, text in _Changes(source):
        mutant = Mutant(path, node.lineno, kind, start, end, text)
        try:
            if ast.dump(ast.parse(mutant.applied(source))) != original:
                yield mutant
        except SyntaxError:
            continue


class _Changes:
    """(node, kind, start, end, text) for every change; bytes, as the tree counts columns."""

    def __init__(self, source: bytes):
        self.source, self.tree = source, ast.parse(source)
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def __iter__(self):
        return self._below(self.tree)

    def _below(self, node):
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                # Words are no numbers; and Python 3.11 counts columns within f-strings from elsewhere.
                if not isinstance(child, ast.AST) or isinstance(child, (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom)):
                    continue
                if "lineno" in child._attributes:
                    yield from ((child, *change) for change in self._of(child))
                yield from self._below(child)

    def _span(self, node):
        return self.lines[node.lineno - 1] + node.col_offset, self.lines[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node):
        start, end = self._span(node)
        text = self.source[start:end].decode()
        return text if isinstance(node, _LEAVES) else f"({text})"

    def _between(self, left, right, operator, kind):
        """The operator that stands between two nodes, changed."""
        start, end = self._span(left)[1], self._span(right)[0]
        written = _WRITTEN.get(type(operator))
        place = self.source.find(written.encode(), start, end) if written else -1
        if place >= 0:
            yield kind, place, place + len(written), _SWAPPED[type(operator)]

    def _of(self, node):
        start, end = self._span(node)
        whole = lambda kind, text: (kind, start, end, text)  # noqa: E731
        match node:
            case ast.BinOp(left=left, op=op, right=right):
                yield from self._between(left, right, op, "sign or operator")
                yield whole("term or factor dropped", self._text(left))
                yield whole("term or factor dropped", self._text(right))
            case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert(), operand=operand):
                yield whole("sign dropped", self._text(operand))
            case ast.AugAssign(target=target, op=op, value=value):
                place, written = self._span(target)[1], _WRITTEN.get(type(op), "@")
                place = self.source.find(written.encode() + b"=", place, self._span(value)[0])
                yield "= for +=", place, place + len(written) + 1, "="
                if type(op) in _SWAPPED:
                    yield "sign or operator", place, place + len(written), _SWAPPED[type(op)]
                yield whole("statement dropped", "pass")
            case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Subscript()]) | ast.Assign(targets=[ast.Attribute()]):
                yield whole("statement dropped", "pass")
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                yield from self._between(left, right, op, "comparison")
                if isinstance(op, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
                    turned = {"<": ">", ">": "<"}[_WRITTEN[type(op)][0]]
                    yield whole("comparison", f"{self._text(left)} {turned} {self._text(right)}")
            case ast.BoolOp(op=op, values=[left, right, *_]):
                yield from self._between(left, right, op, "comparison")
                yield whole("condition dropped", self._text(left))
                yield whole("condition dropped", self._text(node.values[-1]))
            case ast.Constant(value=bool(value)):
                yield whole("constant", str(not value))
            case ast.Constant(value=int(value)):
                yield whole("constant", str(value + 1))
                if value > 0:
                    yield whole("constant", str(value - 1))
            case ast.Constant(value=float(value)):
                yield whole("constant", repr(value * 1.5 if value else 0.01))
            case ast.Slice(lower=lower, upper=upper):
                for bound, side in ((lower, "lower"), (upper, "upper")):
                    if bound is not None:
                        yield "shifted slice", *self._span(bound), f"{self._text(bound)} + 1"
                    elif side == "lower":
                        yield "shifted slice", start, start, "1"
                    elif lower is None and node.step is None:
                        yield whole("shifted slice", ":-1")
            case ast.Call(func=func, args=args, keywords=keywords):
                for one, two in pairwise(args):
                    if not any(isinstance(argument, ast.Starred) for argument in (one, two)):
                        (start_one, end_one), (start_two, end_two) = self._span(one), self._span(two)
                        parts = self.source[start_two:end_two], self.source[end_one:start_two], self.source[start_one:end_one]
                        yield "arguments swapped", start_one, end_two, b"".join(parts).decode()
                if len(args) == 1 and not keywords and isinstance(func, ast.Attribute):
                    of_module = isinstance(func.value, ast.Name) and func.value.id in ("np", "math")
                    yield whole("function dropped", self._text(args[0] if of_module else func.value))
                if args and keywords and keywords[-1].arg not in (None, "strict"):  # lengths that differ are a fault elsewhere
                    yield "keyword dropped", self._span((args + keywords[:-1])[-1])[1], self._span(keywords[-1])[1], ""
            case ast.Name(id=name) if name in _NAMES and not isinstance(node.ctx, ast.Store):
                yield whole("function or type", _NAMES[name])
            case ast.Attribute(attr=name) if name in _NAMES:
                yield "function or type", end - len(name), end, _NAMES[name]
            case ast.If(test=test) | ast.While(test=test):
                yield "condition turned", *self._span(test), f"(not ({self.source[slice(*self._span(test))].decode()}))"
            case ast.IfExp(test=test, body=body, orelse=orelse):
                yield whole("branch taken always", self._text(body))
                yield whole("branch taken always", self._text(orelse))
            case ast.Continue() | ast.Break():
                yield whole("statement dropped", "pass")
