"""What the server imports before calls are forked from it, and the small models that they use."""

import transformers  # noqa: F401

import main_finetune  # noqa: F401
import vlc.checkpoint.weights
import vlc.training.finetune
import vlc.training.run
import vlc.use.predict
import vlc.use.search
import vlc.use.vectors
import write_arrow.__main__  # noqa: F401
from tests import tiny
from vlc.model.sizes import ENCODERS

ENCODERS.setdefault("small_vit", tiny.SMALL)
ENCODERS.setdefault("small_vilt", tiny.SMALL_VILT)
vlc.use.vectors.load_faiss()
