"""A checkpoint as a folder of the model hub: weights without pickle, configuration, tokenizer, preparation, model card.

`vlc.Model`, `load_path` and, after `import vlc`, transformers' AutoModel read it. Nothing is lost on the way: what a
checkpoint stores beside its weights stands in config.json, except the tokenizer, which has files of its own.
"""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import vlc
from vlc.checkpoint import weights
from vlc.checkpoint.hub import OWN_TYPE
from vlc.checkpoint.weight_files import save_safetensors
from vlc.common.files import to_json
from vlc.data.transforms import PIXELS
from vlc.evaluation.predictions import write_text
from vlc.use.export.card import card
from vlc.use.opened import OpenedModel

_BICUBIC = 3  # its number in Pillow
# How transformers' processors are told to prepare images as our pipelines of evaluation do, at a size in pixels.
_PROCESSORS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "mae_test": lambda size: {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
    },
    "central_crop": lambda size: {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": int(size * 256 / 224) if size <= 224 else size},
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
    },
    "pixelbert": lambda size: {
        "image_processor_type": "ViltImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "size_divisor": 32,
        "do_pad": True,
    },
}


def write_folder(model: OpenedModel, folder: Path) -> None:
    """Write config.json, model.safetensors, the tokenizer, preprocessor_config.json and README.md into an empty folder.

    Absolute paths of this machine are left out; of each, the last component stays. Raises UserError where the checkpoint
    is no longer there.
    """
    found = weights.read(model.path)
    state = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.module.state_dict().items()
        if name.startswith(("encoder.", "objectives."))
    }
    save_safetensors(state, {}, folder / "model.safetensors")
    write_text(folder / "config.json", to_json(_config(model, found)))
    write_text(folder / "preprocessor_config.json", to_json(_preprocessing(model)))
    if model.tokenizer is not None:
        model.tokenizer.model_max_length = model.settings.data.max_text_len
        model.tokenizer.save_pretrained(folder)
    write_text(folder / "README.md", card(model, found))


def _config(model: OpenedModel, found: weights.Checkpoint) -> dict[str, Any]:
    """config.json: sizes by the names that transformers has for them, heads, and what a checkpoint stores."""
    settings, size, encoder = model.settings, model.settings.model.size, model.module.encoder
    own = settings.as_config()
    stored = dict(found.extras.get("config") or own)
    stored |= {key: own[key] for key in ("image_size", "max_text_len")}
    extras = {key: value for key, value in found.extras.items() if key != "tokenizer"}
    extras |= {"config": stored, "answers": model.module.extras["answers"]}
    extras["preprocessing"] = {"pipeline": model.pipeline, "pixels": model.pixels}
    sizes: dict[str, Any] = {
        "hidden_size": size.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "intermediate_size": encoder.blocks[0].mlp.fc1.out_features,  # type: ignore[union-attr, operator, index]
        "patch_size": size.patch_size,
        "image_size": settings.data.image_size,
    }
    if model.text_encoder is not None:
        sizes |= {
            "vocab_size": encoder.text_embeddings.word_embeddings.num_embeddings,
            "max_position_embeddings": settings.data.max_text_len,
            "modality_type_vocab_size": encoder.token_types.num_embeddings,
        }
    heads = {head.name: head.kind for head in settings.tasks[0].heads}
    return {
        "architectures": ["VLCModel"],
        "model_type": OWN_TYPE,
        "vlc_version": vlc.__version__,
        **sizes,
        "heads": heads,
        OWN_TYPE: without_places(extras),
    }


def without_places(value: Any) -> Any:
    """Return plain values in which absolute paths are replaced by their last component."""
    if isinstance(value, Mapping):
        return {key: without_places(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(one) for one in value]
    return PurePath(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def _preprocessing(model: OpenedModel) -> dict[str, Any]:
    """preprocessor_config.json. A pipeline that no processor of transformers computes has no image_processor_type."""
    size = model.settings.data.image_size
    mean, std = PIXELS[model.pixels]
    known = _PROCESSORS.get(model.pipeline, lambda size: {})(size)
    pixels: dict[str, Any] = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    pixels |= {"image_mean": list(mean), "image_std": list(std), "do_convert_rgb": True, "resample": _BICUBIC}
    return {**known, **pixels, "vlc_pipeline": model.pipeline}
