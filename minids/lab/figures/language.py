"""The words of a picture in another language.

    words = {
        "Cache of # tokens": "Cache für # Tokens",      # stands for a number; #1, #2 where they change places
        "@, arithmetic": "@, gerechnet",                @ stands for the model's or the domain's name
        "1,234.5": "1.234,5",                           how numbers are written
    }

``minids figures 3 --phrases words.json`` writes the phrases of a picture, to be filled in; a phrase that is not in ``words``
stays as it is. German ("de") and Arabic ("ar") come with the package.
"""

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

from minids.errors import MinidsError, refuse
from minids.files import read_json
from minids.lab.figures import mpl

KEPT = ("de", "ar")
NUMBERS = "1,234.5"
_NUMBER = re.compile(r"(?<![\w.,^-])\d+(?:[.,]\d+)*")
_LARGEST = 1 << 20  # bytes
_MARK = "\u200f"  # the line begins at the right, whatever letter comes first
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff]")


class Language:
    """Says phrases; ``met`` are those that were asked for, as keys of ``words``."""

    def __init__(self, words: Mapping[str, str] | None = None, names: Iterable[str] = ()):
        self.words = dict(words or {})
        self.met: dict[str, str] = {}
        names = sorted({name for name in names if len(name) > 1}, key=len, reverse=True)
        self._names = re.compile("|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in names) or "(?!)")  # or none
        sample = self.words.get(NUMBERS, NUMBERS)
        if not (len(sample) == len(NUMBERS) and sample[0] + sample[2:5] + sample[6] == "12345"):
            raise refuse(f"words.{NUMBERS}", sample, 'shows how this number is written, as in "1.234,5"')
        self._marks = str.maketrans(",.", sample[1] + sample[5])
        self.right_to_left = any(_RIGHT_TO_LEFT.search(said) for said in self.words.values())
        if self.right_to_left and tuple(int(n) for n in mpl.__version__.split(".")[:2]) < (3, 11):
            need = "letters from right to left are joined by matplotlib 3.11 or newer; pip install -U matplotlib"
            raise MinidsError(f"words: {need}")

    def say(self, text: str) -> str:
        """A text in this language, on as many lines."""
        said = re.sub(r"\s+", " ", text.strip()) if "\n" in text else text
        names, said = self._names.findall(said), self._names.sub("@", said)
        numbers, phrase = _NUMBER.findall(said), _NUMBER.sub("#", said)
        if any(c.isalpha() for c in phrase):
            self.met.setdefault(phrase, self.words.get(phrase, ""))
        if not self.words:
            return text
        said = self.words.get(phrase) or phrase
        if names:  # without them an @ is one of the text's own, as in pass@8
            said = _filled(said, "@", [self._name(name) for name in names])
        said = _on_lines(_filled(said, "#", [number.translate(self._marks) for number in numbers]), text.count("\n") + 1)
        return _MARK + said if self.right_to_left and _RIGHT_TO_LEFT.search(said) else said

    def _name(self, name: str) -> str:
        """A model's or a domain's name, which may have words in it: "tiny, 2.66 M parameters"."""
        numbers = [number.translate(self._marks) for number in _NUMBER.findall(name)]
        return _filled(self.words.get(_NUMBER.sub("#", name)) or name, "#", numbers)


def _filled(said: str, mark: str, values: list[str]) -> str:
    """``said`` with values for its marks: #2 is the second, # the next in turn."""
    rest = iter(values)

    def value(found: re.Match) -> str:
        return values[int(found[1]) - 1] if found[1] else next(rest, found[0])

    return re.sub(rf"{mark}(\d?)", value, said)


def _on_lines(said: str, lines: int) -> str:
    """Broken where the lines come out alike."""
    words, broken = said.split(" "), []
    if lines == 1 or "\n" in said:
        return said
    for left in range(lines, 0, -1):
        room, line = sum(map(len, words)) / left, []
        while (words and (not line or len("".join(line)) + len(words[0]) / 2 <= room)) or (words and left == 1):
            line.append(words.pop(0))
        broken.append(" ".join(line))
    return "\n".join(line for line in broken if line)


def words_of(named: str) -> dict[str, str]:
    """Words by name: of a language that comes with the package, or of a JSON file."""
    if not named:
        return {}
    kept = resources.files("minids.lab.figures") / "languages"
    path = Path(str(kept / f"{named}.json")) if named in KEPT else Path(named)
    if not path.is_file():
        raise refuse("words", named, f"is no file, and none of {', '.join(KEPT)}")
    found = read_json(path, _LARGEST)
    if not isinstance(found, dict) or not all(isinstance(said, str) for said in found.values()):
        raise refuse("words", named, "must be a JSON object of phrases")
    return found
