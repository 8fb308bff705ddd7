"""OBJECTIVES: what is learnt, one class and one file each: head, loss, metrics, answers.

Knows neither trainer nor loader nor configuration, and must not import them.
"""

from vlc.objectives.base import Objective
from vlc.objectives.irtr import IRTR
from vlc.objectives.itc import ITC
from vlc.objectives.itm import ITM
from vlc.objectives.mae import MAE
from vlc.objectives.mlm import MLM
from vlc.objectives.nlvr2 import NLVR2
from vlc.objectives.vqa import VQA

OBJECTIVES: dict[str, type[Objective]] = {
    "mlm": MLM,
    "mae": MAE,
    "itm": ITM,
    "vqa": VQA,
    "nlvr2": NLVR2,
    "irtr": IRTR,
    "itc": ITC,
}
