"""BLEU and chrF of translations by sacrebleu, whose signature tells what was counted."""

import html
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlc.common.errors import UserError
from vlc.evaluation.official.scorer import Scorer, read_lines
from vlc.evaluation.text_scores import bleu_and_chrf


def evaluate(hypotheses: Sequence[str], *references: Sequence[str], moses: str = "") -> dict[str, Any]:
    """Return the scores of `vlc.evaluation.text_scores.bleu_and_chrf`.

    references: the lines of one file or of several, each aligned with the hypotheses.
    moses: the language of references that are lower-cased, normalised and tokenised by Moses, as those in Multi30k's folder
        `tok` are. The hypotheses are brought into this form, and the scores, as in most published tables about Multi30k,
        are higher than those of plain texts, with which they must not be compared.
    Raises UserError for files of unequal lengths, and for an empty reference.
    """
    for lines in references:
        if len(lines) != len(hypotheses):
            raise UserError(
                f"There are {len(hypotheses):,} lines of hypotheses and {len(lines):,} of references: line N of one file "
                "should translate what line N of the other translates"
            )
        if "" in map(str.strip, lines):
            raise UserError(f"line {[*map(str.strip, lines)].index('') + 1} of the references is empty: mend the file")
    if moses:
        hypotheses = _tokenised(hypotheses, moses)
        references = tuple([html.unescape(line) for line in lines] for lines in references)
    together = list(map(list, zip(*references, strict=True)))
    return bleu_and_chrf(hypotheses, together, tokenize="none" if moses else None)


def _tokenised(lines: Sequence[str], language: str) -> list[str]:
    try:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer
    except ImportError as error:
        raise UserError("--tok needs the tokenizer of Moses: pip install sacremoses") from error
    normaliser, tokenizer = MosesPunctNormalizer(language), MosesTokenizer(language)
    lines = [normaliser.normalize(line.lower()) for line in lines]
    return [tokenizer.tokenize(line, escape=False, return_str=True) for line in lines]


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options that name the files."""
    parser.add_argument(
        "--hypotheses",
        type=Path,
        required=True,
        metavar="FILE",
        help="a translation in each line, as a test writes them",
    )
    parser.add_argument(
        "--references", type=Path, required=True, nargs="+", metavar="FILE", help="the references, in the same order"
    )
    parser.add_argument(
        "--tok",
        default="",
        metavar="LANGUAGE",
        help="the references come from Multi30k's folder tok: the hypotheses are lower-cased and tokenised likewise",
    )


def score(arguments: Namespace) -> dict[str, Any]:
    """Return what `evaluate` does, from the files. Raises UserError for files that do not fit together."""
    references = map(read_lines, arguments.references)
    return evaluate(read_lines(arguments.hypotheses), *references, moses=arguments.tok)


SCORER = Scorer("BLEU and chrF of translations, by sacrebleu", add_arguments, score)
