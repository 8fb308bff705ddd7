"""KINDS: every kind of objective by its name, a class each."""

from vlc.objectives.answers import Answers
from vlc.objectives.base import Objective
from vlc.objectives.choice import Choice
from vlc.objectives.classes import Classes
from vlc.objectives.generation import Generation
from vlc.objectives.image_classes import ImageClasses
from vlc.objectives.itc import ITC
from vlc.objectives.itm import ITM
from vlc.objectives.mae import MAE
from vlc.objectives.mlm import MLM
from vlc.objectives.options import CLASSES
from vlc.objectives.pointing import Pointing
from vlc.objectives.regress import Regress
from vlc.objectives.ttc import TTC
from vlc.objectives.ttm import TTM
from vlc.objectives.words import WordTranslation

KINDS: dict[str, type[Objective]] = CLASSES
KINDS |= {
    "mlm": MLM,
    "mae": MAE,
    "itm": ITM,
    "ttm": TTM,
    "ttc": TTC,
    "answers": Answers,
    "classes": Classes,
    "choice": Choice,
    "itc": ITC,
    "pointing": Pointing,
    "regress": Regress,
    "generation": Generation,
    "words": WordTranslation,
    "image_classes": ImageClasses,
}
