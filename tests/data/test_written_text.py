"""From tokens back to texts, and encoders for shorter texts."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.data.made import ENCODER
from vlc.data.tokens import TextEncoder


def test_wordpiece_leaves_out_blanks_that_texts_do_not_have():
    for text in ("a left-hand (red) dog: two cats, one left; one right.", "l’image d’un chien", ""):
        assert ENCODER.text_of(ENCODER.within(40)(text).ids) == text


def test_blanks_that_a_tokenizer_keeps_stay():
    pieces = [("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[MASK]", 0.0), ("▁a", -1.0), ("▁-", -1.0), ("▁b", -1.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask")}
    encoder = TextEncoder(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special), 8)
    assert encoder.text_of([1, 4, 5, 6, 2]) == "a - b"


def test_an_encoder_for_shorter_texts_leaves_the_first_one_alone():
    shorter = ENCODER.within(5)
    text = "a red dog left of a house"
    assert shorter(text).ids == [*ENCODER(text).ids[:4], ENCODER.sep_id]
    assert (shorter.max_text_len, ENCODER.max_text_len) == (5, 12)
