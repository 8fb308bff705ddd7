"""Scores of written texts against references: BLEU and chrF by sacrebleu, and CIDEr-D."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

_SIGMA, _MAX_N = 6.0, 4  # of CIDEr-D
_WORD = re.compile(r"\w+(?:['-]\w+)*")


def bleu_and_chrf(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: str | None = None,
) -> dict[str, Any]:
    """Return the scores of a corpus by sacrebleu (Post 2018), as percentages.

    Keys: bleu with its `signature`, precision_1 to precision_4 and brevity_penalty; chrf and chrf++ with their signatures;
    bleu_lowercased, which is of lower-cased hypotheses and references, as in the code of BertGen (Mitzalis et al. 2021),
    and must not be compared with bleu.

    references: the references of each hypothesis.
    tokenize: a tokenizer of sacrebleu, such as none for texts that are tokenised; None: sacrebleu's own choice, 13a.
    """
    most = max(map(len, references))
    # sacrebleu takes None where there is no further reference, and its types do not say so.
    streams: list[Any] = [[own[number] if number < len(own) else None for own in references] for number in range(most)]
    bleu, lowercased = BLEU(tokenize=tokenize), BLEU(lowercase=True, tokenize=tokenize)
    found = bleu.corpus_score(hypotheses, streams)
    scores: dict[str, Any] = {
        "bleu": found.score,
        **{f"precision_{order}": value for order, value in enumerate(found.precisions, start=1)},
        "brevity_penalty": found.bp,
        "signature": str(bleu.get_signature()),
        "bleu_lowercased": lowercased.corpus_score(hypotheses, streams).score,
        "signature_lowercased": str(lowercased.get_signature()),
    }
    for name, order in (("chrf", 0), ("chrf++", 2)):
        chrf = CHRF(word_order=order)
        scores[name] = chrf.corpus_score(hypotheses, streams).score
        scores[f"signature_{name}"] = str(chrf.get_signature())
    return scores


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return CIDEr-D (Vedantam et al. 2015), the mean over the hypotheses, as a percentage: 1000 for equal texts.

    Document frequencies are those of the references. Words are lower-cased and without punctuation; COCO's public code
    leaves that to a Java tokenizer, which splits a few words otherwise. Its packages need Java, or weigh 100 MB.

    references: the references of each hypothesis, one or more.
    """
    written = [_ngrams(text) for text in hypotheses]
    given = [[_ngrams(text) for text in own] for own in references]
    seen = Counter(ngram for own in given for ngram in set().union(*own))
    logarithm = math.log(len(given))
    weight = {ngram: logarithm - math.log(count) for ngram, count in seen.items()}
    scores = [
        sum(_similarity(one, other, weight, logarithm) for other in own) / len(own)
        for one, own in zip(written, given, strict=True)
    ]
    return 100 * sum(scores) / len(scores)


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return Counter(tuple(words[i : i + n]) for n in range(1, _MAX_N + 1) for i in range(len(words) - n + 1))


def _similarity(
    one: Counter[tuple[str, ...]],
    other: Counter[tuple[str, ...]],
    weight: Mapping[tuple[str, ...], float],
    unseen: float,
) -> float:
    """Ten times the mean over n of the cosine of clipped n-gram vectors, less for texts of other lengths.

    unseen: the weight of n-grams that no reference has.
    """
    total = 0.0
    for n in range(1, _MAX_N + 1):
        vectors = [{k: v * weight.get(k, unseen) for k, v in own.items() if len(k) == n} for own in (one, other)]
        product = sum(min(value, vectors[1][k]) * vectors[1][k] for k, value in vectors[0].items() if k in vectors[1])
        norms = math.prod(math.sqrt(sum(value**2 for value in vector.values())) for vector in vectors)
        total += product / norms if norms else 0.0
    lengths = [sum(count for k, count in own.items() if len(k) == 1) for own in (one, other)]
    return 10 * total / _MAX_N * math.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * _SIGMA**2))
