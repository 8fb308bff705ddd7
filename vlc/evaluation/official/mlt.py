"""How a translation system translates ambiguous words: the evaluation of the WMT 2018 task on multimodal translation.

Each line of the references names an English word, the acceptable translations of it, and the line of the system's output
(from 0) that should have one of them (Lala and Specia 2018, https://github.com/sheffieldnlp/mlt).
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from vlc.common.errors import UserError
from vlc.data.lexical_translation import normalized, translations
from vlc.evaluation.official.scorer import Metrics, Scorer, read_lines

LANGUAGES = ("de", "fr")


def hits(references: Sequence[str], hypotheses: Sequence[str], *, published: str | None = None) -> list[bool]:
    """Return for each reference whether its line of the output has an acceptable translation.

    The words of a translation have to stand one after the other among the words of the line, in any case.

    references: WORD TRANSLATION ... NUMBER; a translation may be written as rules of `translations` say.
    hypotheses: lines of the output, whose words are divided by blanks.
    published: "de" or "fr": count as the public scorer does for this language. It compares case, takes each word of a
        reference but the first one for a translation, the number at its end too, and in French finds them within words.
    Raises UserError for a reference without number, or of a line that the output does not have.
    """
    found = []
    for place, reference in enumerate(references, start=1):
        words = reference.split()
        if len(words) < 2 or not (words[-1].isascii() and words[-1].isdecimal()):
            raise UserError(
                f"line {place} of the references is {reference!r:.80}, expected WORD TRANSLATION ... NUMBER"
            )
        if int(words[-1]) >= len(hypotheses):
            raise UserError(
                f"line {place} of the references is about line {words[-1]} of the output (from 0), which has "
                f"{len(hypotheses):,} lines: it should be of the whole test set"
            )
        line = hypotheses[int(words[-1])]
        if published:
            found.append(any(word in (line if published == "fr" else line.split()) for word in words[1:]))
        else:
            spaced = f" {' '.join(normalized(line).split())} "
            found.append(any(f" {form} " in spaced for form in translations(" ".join(words[1:-1]))))
    return found


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options that name the files."""
    parser.add_argument("--references", type=Path, required=True, metavar="FILE", help="EN{DE,FR}_MLTD_test2018.txt")
    parser.add_argument(
        "--hypotheses", type=Path, required=True, metavar="FILE", help="the output, a tokenised sentence in each line"
    )
    parser.add_argument("--compat", action="store_true", help="count as the public scorer does, defects included")
    parser.add_argument(
        "--language",
        choices=LANGUAGES,
        help="of the output, for --compat (default: as the name of the references says)",
    )


def score(arguments: Namespace) -> Metrics:
    """Return the accuracy in percent with the number of references, and how many of them are right. Raises UserError."""
    references, hypotheses = read_lines(arguments.references), read_lines(arguments.hypotheses)
    language = arguments.language or _language(arguments.references) if arguments.compat else None
    try:
        found = hits(references, hypotheses, published=language)
    except UserError as error:
        raise UserError(f"{arguments.references} and {arguments.hypotheses}: {error}") from error
    return {"accuracy": [100 * sum(found) / len(found), len(found)], "correct": sum(found)}


def _language(references: Path) -> str:
    """The language that the name of a file of references says. Raises UserError."""
    named = [language for language in LANGUAGES if references.name.lower().startswith(f"en{language}")]
    if not named:
        raise UserError(f"--compat depends on the language, which {references.name} does not say: pass --language")
    return named[0]


SCORER = Scorer("MLT: accuracy of a translation system on ambiguous words", add_arguments, score)
