"""Sentences about scenes of embedded emoji in English, German, French and Czech, with gender, number and case.

A `Description` says what a sentence tells, in no language; `sentence` says it in one. Its words stand in TEMPLATES, with
places for things, for example "{second:the dat}": the form in which they are named, and the case of German and Czech. The
forms are "a" (a dog, two dogs, several dogs), "the" (the dog, one of the two dogs), "all" (dogs), "it", and "be" (is, are).
The nouns of all languages are in `vlc/data/assets/emoji/nouns.csv`.
"""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

from write_arrow.sources.emoji_scenes import PLACES, with_article

LANGUAGES = ("en", "de", "fr", "cs")
HIDDEN = "thing"  # the noun that stands for any other

_TABLE = files("vlc") / "data/assets/emoji/nouns.csv"
NOUNS = {row["en"]: row for row in csv.DictReader(_TABLE.read_text(encoding="utf-8").splitlines())}

TEMPLATES = {
    "see": {
        "en": "we see {things:a} on a {color} background.",
        "de": "wir sehen {things:a acc} vor {color} Hintergrund.",
        "fr": "nous voyons {things:a} sur un fond {color}.",
        "cs": "vidíme {things:a acc} na {color} pozadí.",
    },
    "shown": {
        "en": "on a {color} background there {things:be} {things:a}.",
        "de": "vor {color} Hintergrund sind {things:a nom} zu sehen.",
        "fr": "sur un fond {color}, il y a {things:a}.",
        "cs": "na {color} pozadí {things:be} {things:a nom}.",
    },
    "picture": {
        "en": "this is a picture with {things:a} on a {color} background.",
        "de": "das ist ein Bild mit {things:a dat} vor {color} Hintergrund.",
        "fr": "c'est une image avec {things:a} sur un fond {color}.",
        "cs": "to je obrázek s {things:a ins} na {color} pozadí.",
    },
    "places": {
        "en": "in the picture, {first:a} is {place} and {second:a} is {other_place}.",
        "de": "auf dem Bild ist {first:a nom} {place} und {second:a nom} {other_place}.",
        "fr": "sur l'image, {first:a} est {place} et {second:a} {other_place}.",
        "cs": "na obrázku je {first:a nom} {place} a {second:a nom} {other_place}.",
    },
    "beside": {
        "en": "{place} there is {first:a}, and {side} it we see {second:a}.",
        "de": "{place} ist {first:a nom}, und {side} {first:it dat} sehen wir {second:a acc}.",
        "fr": "{place}, il y a {first:a} et, {side_of_it}, nous voyons {second:a}.",
        "cs": "{place} je {first:a nom} a {side} {first:it {case}} vidíme {second:a acc}.",
    },
    "relation": {
        "en": "in the picture, {second:the} is {side} {first:the}.",
        "de": "auf dem Bild ist {second:the nom} {side} {first:the dat}.",
        "fr": "sur l'image, {second:the} est {side} {first:the}.",
        "cs": "na obrázku je {second:the nom} {side} {first:the {case}}.",
    },
    "neighbour": {
        "en": "{side} {first:the} we see {second:a}.",
        "de": "{side} {first:the dat} sehen wir {second:a acc}.",
        "fr": "{side} {first:the}, nous voyons {second:a}.",
        "cs": "{side} {first:the {case}} vidíme {second:a acc}.",
    },
    "more": {
        "en": "in the picture there are more {first:all} than {second:all}.",
        "de": "auf dem Bild sind mehr {first:all} als {second:all} zu sehen.",
        "fr": "sur l'image, il y a plus de {first:all} que de {second:all}.",
        "cs": "na obrázku je více {first:all} než {second:all}.",
    },
}

# Words that no noun changes, in the order of COLORS, PLACES and SIDES.
COLORS = ("red", "green", "blue", "yellow", "purple", "gray")
_COLORS = {
    "en": COLORS,
    "de": ("rotem", "grünem", "blauem", "gelbem", "violettem", "grauem"),
    "fr": ("rouge", "vert", "bleu", "jaune", "violet", "gris"),
    "cs": ("červeném", "zeleném", "modrém", "žlutém", "fialovém", "šedém"),
}
_PLACES = {
    "en": tuple(f"at the {place}" for place in PLACES),
    "de": ("oben links", "oben rechts", "unten links", "unten rechts"),
    "fr": ("en haut à gauche", "en haut à droite", "en bas à gauche", "en bas à droite"),
    "cs": ("vlevo nahoře", "vpravo nahoře", "vlevo dole", "vpravo dole"),
}
SIDES = ("left of", "right of", "above", "below")
_SIDES = {
    "en": ("to the left of", "to the right of", "above", "below"),
    "de": ("links von", "rechts von", "über", "unter"),
    "fr": ("à gauche de", "à droite de", "au-dessus de", "au-dessous de"),
    "cs": ("vlevo od", "vpravo od", "nad", "pod"),
}
_SIDES_OF_IT = ("à sa gauche", "à sa droite", "au-dessus", "au-dessous")  # French has no pronoun of gender here
_CASES = ("gen", "gen", "ins", "ins")  # of a Czech noun behind _SIDES


@dataclass(frozen=True)
class Mention:
    """Things of one noun, as a sentence names them.

    count: how many there are.
    size: "small" or "large"; "" where the sentence does not tell it.
    several: whether it says "several" and no number.
    """

    noun: str
    count: int = 1
    size: str = ""
    several: bool = False


@dataclass(frozen=True)
class Description:
    """What a sentence tells.

    What a template does not tell is at its default.

    template: a name of TEMPLATES.
    mentions: all things; or the first and the second.
    color: of the background.
    places: cells of the first and of the second thing.
    side: the side of the first thing on which the second is.
    """

    template: str
    mentions: tuple[Mention, ...]
    color: str = COLORS[0]
    places: tuple[int, int] = (0, 0)
    side: str = "above"


def sentence(description: Description, language: str) -> str:
    """A description as a sentence of one of LANGUAGES."""
    place, other_place = (_PLACES[language][cell] for cell in description.places)
    side, mentions = SIDES.index(description.side), description.mentions
    text = TEMPLATES[description.template][language].format(
        things=_Named(mentions, language),
        first=_Named(mentions[:1], language),
        second=_Named(mentions[1:], language),
        color=_COLORS[language][COLORS.index(description.color)],
        place=place,
        other_place=other_place,
        side=_SIDES[language][side],
        side_of_it=_SIDES_OF_IT[side],
        case=_CASES[side],
    )
    for pattern, replaced in _JOINED[language]:
        text = re.sub(pattern, replaced, text)
    return text[0].upper() + text[1:]


# How neighbouring words change each other: "de le chat" is "du chat".
_JOINED: dict[str, tuple[tuple[str, str], ...]] = {
    "en": (),
    "de": ((r"\bvon dem\b", "vom"),),
    "fr": ((r"\b([ld])[ea] (?=[aeiouéœ])", r"\1'"), (r"\bde le\b", "du")),
    "cs": ((r"\bs (?=[szšž]|dv|tř|čt|ps)", "se "),),
}


@dataclass(frozen=True)
class _Named:
    """Things to be named in a language: `format` does so in a form and a case."""

    mentions: tuple[Mention, ...]
    language: str

    def __format__(self, form_and_case: str) -> str:
        form, _, case = form_and_case.partition(" ")
        if form == "be":  # agrees with the things that follow first
            one = self.mentions[0].count == 1 or (self.language == "cs" and self.mentions[0].several)
            return {"en": ("are", "is"), "cs": ("jsou", "je")}[self.language][one]
        *others, last = (_PHRASES[self.language](mention, form, case) for mention in self.mentions)
        conjunction = {"en": "and", "de": "und", "fr": "et", "cs": "a"}[self.language]
        return f"{', '.join(others)} {conjunction} {last}" if others else last


def _phrase(*words: str) -> str:
    return " ".join(filter(None, words))


def _english(mention: Mention, form: str, case: str) -> str:
    row = NOUNS[mention.noun]
    one, many = _phrase(mention.size, row["en"]), _phrase(mention.size, row["en_plural"])
    numbers = ("two", "three", "four")
    if form == "it":
        return "it"
    if form == "all":
        return many
    if mention.count == 1:
        return f"the {one}" if form == "the" else with_article(one)
    number = numbers[mention.count - 2]
    if form == "the":
        return f"one of the {number} {many}"
    return f"{'several' if mention.several else number} {many}"


_GERMAN_ONE = {  # the article ein
    "nom": {"masculine": "ein", "feminine": "eine", "neuter": "ein"},
    "acc": {"masculine": "einen", "feminine": "eine", "neuter": "ein"},
    "dat": {"masculine": "einem", "feminine": "einer", "neuter": "einem"},
}
_GERMAN_THE = {
    "nom": {"masculine": "der", "feminine": "die", "neuter": "das"},
    "dat": {"masculine": "dem", "feminine": "der", "neuter": "dem"},
}
_GERMAN_ONE_OF = {
    "nom": {"masculine": "einer", "feminine": "eine", "neuter": "eines"},
    "dat": {"masculine": "einem", "feminine": "einer", "neuter": "einem"},
}
_GERMAN_AFTER_ONE = {  # endings of adjectives
    "nom": {"masculine": "er", "feminine": "e", "neuter": "es"},
    "acc": {"masculine": "en", "feminine": "e", "neuter": "es"},
    "dat": {"masculine": "en", "feminine": "en", "neuter": "en"},
}


def _german(mention: Mention, form: str, case: str) -> str:
    row = NOUNS[mention.noun]
    gender, size = row["de_gender"], {"small": "klein", "large": "groß", "": ""}[mention.size]
    noun = row["de" if case == "nom" else "de_oblique"]
    number = ("zwei", "drei", "vier")[mention.count - 2]
    if form == "it":
        return {"masculine": "ihm", "feminine": "ihr", "neuter": "ihm"}[gender]
    if form == "all":
        return _phrase(size and f"{size}e", row["de_plural"])
    if form == "the":
        if mention.count > 1:
            return _phrase(_GERMAN_ONE_OF[case][gender], "der", number, size and f"{size}en", row["de_plural"])
        return _phrase(_GERMAN_THE[case][gender], size and size + ("e" if case == "nom" else "en"), noun)
    if mention.count == 1:
        return _phrase(_GERMAN_ONE[case][gender], size and size + _GERMAN_AFTER_ONE[case][gender], noun)
    ending, plural = ("en", row["de_plural_dat"]) if case == "dat" else ("e", row["de_plural"])
    return _phrase(f"mehrer{ending}" if mention.several else number, size and size + ending, plural)


def _french(mention: Mention, form: str, case: str) -> str:
    row = NOUNS[mention.noun]
    feminine = "e" if row["fr_gender"] == "feminine" else ""
    size = {"small": f"petit{feminine}", "large": f"grand{feminine}", "": ""}[mention.size]
    one, many = _phrase(size, row["fr"]), _phrase(size and f"{size}s", row["fr_plural"])
    if form == "all":
        return many
    if mention.count == 1:
        return f"{'la' if feminine else 'le'} {one}" if form == "the" else f"un{feminine} {one}"
    number = ("deux", "trois", "quatre")[mention.count - 2]
    if form == "the":
        return f"l'un{feminine} des {number} {many}"
    return f"{'plusieurs' if mention.several else number} {many}"


# Endings of malý and velký, as those of their nouns are: animate, inanimate, feminine, neuter.
_CZECH_GENDERS = ("animate", "inanimate", "feminine", "neuter")
_CZECH_ENDINGS = {
    "nom": ("ý", "ý", "á", "é"),
    "gen": ("ého", "ého", "é", "ého"),
    "acc": ("ého", "ý", "ou", "é"),
    "ins": ("ým", "ým", "ou", "ým"),
    "plural_nom": ("í", "é", "é", "á"),
    "plural_gen": ("ých", "ých", "ých", "ých"),
    "plural_acc": ("é", "é", "é", "á"),
    "plural_ins": ("ými", "ými", "ými", "ými"),
}
_CZECH_ONE_OF = {
    "nom": ("jeden", "jeden", "jedna", "jedno"),
    "gen": ("jednoho", "jednoho", "jedné", "jednoho"),
    "ins": ("jedním", "jedním", "jednou", "jedním"),
}
_CZECH_IT = {"gen": ("něj", "něj", "ní", "něj"), "ins": ("ním", "ním", "ní", "ním")}
_CZECH_NUMBERS = {
    "nom": ("dva", "tři", "čtyři"),
    "gen": ("dvou", "tří", "čtyř"),
    "acc": ("dva", "tři", "čtyři"),
    "ins": ("dvěma", "třemi", "čtyřmi"),
}


def _czech(mention: Mention, form: str, case: str) -> str:
    row = NOUNS[mention.noun]
    gender = _CZECH_GENDERS.index(row["cs_gender"])

    def declined(case: str) -> str:
        stem = {"small": "mal", "large": "velk", "": ""}[mention.size]
        adjective = stem and stem + _CZECH_ENDINGS[case][gender]
        return _phrase(adjective.replace("velkí", "velcí"), row[f"cs_{case}"])

    if form == "it":
        return _CZECH_IT[case][gender]
    if form == "all":
        return declined("plural_gen")
    if mention.count == 1:
        return declined(case)
    if form == "the":
        number = _CZECH_NUMBERS["gen"][mention.count - 2]
        return f"{_CZECH_ONE_OF[case][gender]} ze {number} {declined('plural_gen')}"
    if mention.several:  # counts as a noun that asks for the genitive, but not in the instrumental
        return f"několika {declined('plural_ins')}" if case == "ins" else f"několik {declined('plural_gen')}"
    number = _CZECH_NUMBERS[case][mention.count - 2]
    if number == "dva" and row["cs_gender"] in ("feminine", "neuter"):
        number = "dvě"
    return f"{number} {declined(f'plural_{case}')}"


_PHRASES: dict[str, Callable[[Mention, str, str], str]] = {
    "en": _english,
    "de": _german,
    "fr": _french,
    "cs": _czech,
}
