"""The parts that a batch can hold beside texts and images, with a file for each kind.

A part is a small frozen object: objectives list the parts that they want, and equal parts are made once. It is made from
samples in a loader process, and lies in `Batch.parts` under its name.
"""

from vlc.data.parts.candidates import Candidates
from vlc.data.parts.field import Field
from vlc.data.parts.hard_texts import HardTexts
from vlc.data.parts.languages import Languages
from vlc.data.parts.masked_answer import MaskedAnswer
from vlc.data.parts.masked_text import MaskedText
from vlc.data.parts.matched_translations import MatchedTranslations
from vlc.data.parts.part import Part, by_name, columns_of
from vlc.data.parts.patch_noise import PatchNoise
from vlc.data.parts.regions import Boxes, Regions
from vlc.data.parts.second_text import SecondText
from vlc.data.parts.source_and_target import SourceAndTarget
from vlc.data.parts.text_describes_image import TextDescribesImage
from vlc.data.parts.wrong_images import WrongImages
from vlc.data.parts.wrong_texts import WrongTexts
from vlc.data.parts.wrong_translations import WrongTranslations

__all__ = [
    "Boxes",
    "Candidates",
    "Field",
    "HardTexts",
    "Languages",
    "MaskedAnswer",
    "MaskedText",
    "MatchedTranslations",
    "Part",
    "PatchNoise",
    "Regions",
    "SecondText",
    "SourceAndTarget",
    "TextDescribesImage",
    "WrongImages",
    "WrongTexts",
    "WrongTranslations",
    "by_name",
    "columns_of",
]
