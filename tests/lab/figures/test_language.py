"""Pictures in other languages: every phrase has its words in German and Arabic, numbers as they are written there."""

import dataclasses
import re

import pytest
from lab.figures.proof import crossed, faults, words

from minids.errors import MinidsError
from minids.lab import figures
from minids.lab.figures.collection import phrases, pictures
from minids.lab.figures.language import KEPT, Language, words_of
from minids.lab.figures.picture import Look
from minids.lab.figures.style import encoded, style

NAMES = re.compile(r"softmax|Llama|Qwen|DeepSeek|Kimi|Moonlight|float32|DualPipe$")  # the same in every language
QUICK = {"guesses_accepted": {"windows": 2, "new_tokens": 8, "rounds": 1}, "nodes_and_traffic": {"length": 32}}


def some(picture):
    """The picture with few moments of its film, the first and the last among them."""
    if picture.film is None:
        return picture
    moments = picture.film.moments

    def few(rows):
        found = list(moments(rows))
        return [found[0], *found[1 :: max(1, len(found) // 12)], found[-1]]

    return dataclasses.replace(picture, film=dataclasses.replace(picture.film, moments=few))


@pytest.mark.parametrize("picture", pictures(), ids=lambda p: p.name)
def test_every_phrase_has_its_words_in_both_languages(picture, run):
    asked = {"run": run, **QUICK.get(picture.name, {})} if picture.source.startswith("run") else {}
    rows = picture.rows(**asked)
    met = [phrase for phrase in phrases([some(picture)], lambda p: rows) if re.search("[a-z]{3}", phrase)]
    assert met and [(language, phrase) for language in KEPT for phrase in met
                    if phrase not in words_of(language) and not NAMES.search(phrase)] == []  # fmt: skip


@pytest.mark.parametrize("language", KEPT)
def test_translations_keep_every_number_and_name(language):
    for phrase, said in words_of(language).items():
        assert said and sorted(re.findall("#|@", said)) == sorted(re.findall("#|@", phrase)), phrase


NARROW = (  # words before or behind bars and lanes, which are of other lengths in other languages
    "kv_cache_per_token", "where_parameters_sit", "grpo", "pipeline_schedules", "all_to_all", "training_cost", "specialisation",
)  # fmt: skip


@pytest.mark.parametrize("language", KEPT)
@pytest.mark.parametrize("name", ["one_card", "wall_of_experts", *NARROW])
def test_nothing_overlaps_in_another_language(language, name):
    figure = getattr(figures, name)(words=words_of(language))
    assert faults(figure, smallest=9) == []
    if name == "pipeline_schedules":  # long words in front of lanes
        assert crossed(figure) == []


def test_german_numbers_and_arabic_letters():
    german = words(figures.one_card(words=words_of("de")))
    assert "Eine Karte mit 80 GB: 40 Seiten oder 2.277" in german and "32.768" in german
    assert "70,3 kB" in words(figures.kv_cache_per_token(words=words_of("de"))), "once, not there and back"
    arabic = figures.one_card(words=words_of("ar"))
    with style():
        svg = encoded(arabic, "svg").decode()
    assert "بطاقة واحدة بسعة 80 غيغابايت: 40 صفحة أو 2,277" in svg, "as it is written: who shows it joins the letters"


def test_phrases_numbers_and_names():
    own = {
        "@ keeps # of #": "von #2 behält @ #1",
        "tiny, # M": "klein, # M",
        "a long phrase": "ein langer Satz",
        "1,234.5": "1.234,5",
    }
    language = Language(own, ["tiny, 2.6 M", "code"])
    assert language.say("tiny, 2.6 M keeps 1,000 of 2.5") == "von 2,5 behält klein, 2,6 M 1.000"
    assert language.say("a long\nphrase") == "ein langer\nSatz", "on as many lines"
    assert language.say("pass@8 100") == "pass@8 100", "an @ of the text's own"
    assert language.say("unknown 1.5") == "unknown 1,5" and language.met["unknown #"] == ""
    assert Language().say("E4M3 and GQA-8, 3 of 4") == "E4M3 and GQA-8, 3 of 4"


def test_numbers_on_axes_are_in_the_language():
    plain, german = (words(figures.cache_and_quality(words=words_of(name))) for name in ("", "de"))
    assert "2.1" in plain.split("\n") and "2,1" not in plain
    assert "2,1" in german.split("\n") and "2.1" not in german.split("\n")


def test_what_are_no_words_is_refused(tmp_path):
    with pytest.raises(MinidsError, match=r"words.*klingon.*none of de, ar"):
        words_of("klingon")
    (tmp_path / "w.json").write_text('{"a": 1}')
    with pytest.raises(MinidsError, match="JSON object of phrases"):
        words_of(str(tmp_path / "w.json"))
    with pytest.raises(MinidsError, match=r"1,234\.5"):
        Language({"1,234.5": "12345"})


def test_old_matplotlib_cannot_join_letters(monkeypatch):
    monkeypatch.setattr("matplotlib.__version__", "3.10.1")
    with pytest.raises(MinidsError, match=r"matplotlib 3\.11 or newer"):
        figures.one_card(words=words_of("ar"))
    assert Look(words=words_of("de")) and figures.one_card(words=words_of("de")), "others are not joined"
