"""Pre-trained models of timm by their names, from its cache or the model hub."""

from pathlib import Path

import timm
from huggingface_hub.errors import HfHubHTTPError

from vlc.checkpoint.hub import Numbers
from vlc.checkpoint.weight_files import Weights
from vlc.common.errors import MissingFile, UserError

PREFIX = "timm:"


def weights(path: str) -> tuple[Weights, Numbers]:
    """Return the parameters of timm:NAME, and its number of heads.

    Raises UserError for a name that timm does not know or has no weights for, and MissingFile where they cannot be fetched.
    """
    name = path.removeprefix(PREFIX)
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.partition('.')[0][:12]}*")[:5])
        raise UserError(f"timm has no model of the name {name}" + (f": it has {near}" if near else ""))
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, HfHubHTTPError) as error:
        raise MissingFile(
            f"The weights of {path} are not here, and cannot be fetched ({type(error).__name__}): run once with a "
            "network, or copy the file of the weights here and name it"
        ) from error
    except RuntimeError as error:  # timm has no weights of this name
        raise UserError(f"{path}: {error}") from error
    blocks = getattr(model, "blocks", None)
    if not blocks or not hasattr(blocks[0], "attn"):
        raise UserError(f"{path} is no ViT: pass the name of one")
    return Weights(Path(path), dict(model.state_dict())), (blocks[0].attn.num_heads, None, None)
