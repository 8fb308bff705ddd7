"""The annotations of Multimodal Lexical Translation: an ambiguous word and its translations (Lala and Specia 2018).

They were typed by hand: some are "Back pack = rucksack", some are in capitals, and phrases have underscores.
"""

import unicodedata


def normalized(text: str) -> str:
    """Return the text in small letters, with composed characters (NFC)."""
    return unicodedata.normalize("NFC", text).lower()


def translations(annotation: str) -> list[str]:
    """Return the translations that an annotation lists: words, or phrases with a blank between their words.

    Blanks divide the annotation. What stands before an equals sign, the phrase in the source language, is left out.
    """
    forms = normalized(annotation).rpartition("=")[2].split()
    return [phrase for form in forms if (phrase := " ".join(form.split("_")).strip())]
