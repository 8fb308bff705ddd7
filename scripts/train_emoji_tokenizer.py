"""Makes vlc/data/assets/emoji/tokenizer: a WordPiece tokenizer of the emoji texts in ten languages and of the scenes.

    python scripts/train_emoji_tokenizer.py

English counts most, so that its words stay whole. Letters keep their accents and become lower case. The tokenizer in the
assets was made from an earlier version of the scenes: 3 % of its tokens are others. Checkpoints depend on it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from write_arrow.sources.emoji import LANGUAGES, clean, packaged
from write_arrow.sources.emoji_scenes import captions, draw_scene, questions

VOCAB_SIZE = 8000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ENGLISH_COPIES = 20
NUM_SCENES = 5000
FOLDER = Path(__file__).parents[1] / "vlc/data/assets/emoji/tokenizer"


def texts(num_scenes: int = NUM_SCENES) -> Iterator[str]:
    for language in LANGUAGES:
        for column in (f"caption_{language}", f"keywords_{language}"):
            for words in packaged()[column].to_pylist():
                yield from [clean(text) for text in words] * (ENGLISH_COPIES if language == "en" else 1)
    rng = np.random.default_rng(0)
    for _ in range(num_scenes):
        scene = draw_scene(rng, "train", set(), seed=0)
        yield from captions(scene, rng)
        yield from (question for _, question, _ in questions(scene, rng))


def main() -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCAB_SIZE, special_tokens=list(SPECIAL), min_frequency=2)
    tokenizer.train_from_iterator(texts(), trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.BertProcessing(ids[1], ids[0])
    tokenizer.decoder = decoders.WordPiece()
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "attention_mask"],
        **dict(zip(names, SPECIAL, strict=True)),
    ).save_pretrained(FOLDER)


if __name__ == "__main__":
    main()
