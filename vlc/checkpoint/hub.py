"""Folders of transformers and the model hub, in which a config.json lies beside the weights."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from torch import Tensor
from transformers import CONFIG_MAPPING, ViltConfig

from vlc.common.errors import MissingFile, UserError, first_line
from vlc.data.tokens import ROLES

# The first existing file is read; an index names the files of weights that are stored in several.
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
MODEL_TYPE = "vilt"
_FETCHED = ["*.json", "*.safetensors", "*.bin", "*.txt"]
OWN_TYPE = "vlc"  # of the folders that `vlc.Model.save_pretrained` writes
TEXT_TYPE = "bert"
# Of models whose image half alone is read.
VISION_TYPES = (
    *("clip", "clip_vision_model", "siglip", "siglip_vision_model"),
    *("dinov2", "dinov2_with_registers", "dinov3_vit"),
)
# Our names of transformers' activations.
_ACTIVATIONS: dict[str, str | None] = {"gelu_pytorch_tanh": "gelu_tanh", "silu": None}  # None: of gates

# Sizes in config.json: the parameter of ours, and its axis, that has this size.
_SIZES = {
    "hidden_size": ("encoder.patch_embed.proj.weight", 0),
    "num_channels": ("encoder.patch_embed.proj.weight", 1),
    "patch_size": ("encoder.patch_embed.proj.weight", 2),
    "intermediate_size": ("encoder.blocks.0.mlp.fc1.weight", 0),
    "vocab_size": ("encoder.text_embeddings.word_embeddings.weight", 0),
    "max_position_embeddings": ("encoder.text_embeddings.position_embeddings.weight", 0),
    "type_vocab_size": ("encoder.text_embeddings.token_type_embeddings.weight", 0),
    "modality_type_vocab_size": ("encoder.token_types.weight", 0),
}
# Other values that change the computation, as vlc's encoder has them.
_FIXED = {"hidden_act": ("gelu",), "max_image_length": (-1, None), "qkv_bias": (True,)}
Numbers = tuple[
    int | None, float | None, str | None
]  # heads, epsilon of the norms, and activation, where they are known
_LARGEST = 2**26  # bytes of a config.json


def fetched(name: str, revision: str | None = None) -> Path:
    """Return a file or folder as it is, or else the folder of a name of the model hub, from its cache or from there.

    revision: branch, tag or commit of a name. Raises UserError where there is neither.
    """
    path = Path(name)
    if path.exists():
        return path
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FETCHED))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise UserError(
            f"{name} is neither a file, nor a folder, nor to be had from the model hub ({first_line(error)}). Fetch it "
            f"where there is a network (hf download {name} --local-dir FOLDER) and name this folder"
        ) from error


def find_weights(folder: Path) -> Path:
    """Return the file of weights in a folder, or the index of several.

    Raises MissingFile, or UserError if config.json describes another model.
    """
    read_config(folder)
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    suffixes = (".ckpt", ".pth", ".pt", ".safetensors", ".bin")
    others = sorted(path.name for path in folder.iterdir() if path.suffix in suffixes)
    hint = f". It has {', '.join(others[:5])}: name one of these" if others else ""
    raise MissingFile(
        f"Checkpoint {folder} is a folder without weights: expected {WEIGHTS[0]} or {WEIGHTS[2]}, or the index of several "
        f"(.index.json), in it{hint}"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json of a folder; empty where there is none. Raises UserError for a model that vlc does not know.

    timm's files have no model_type, and nothing else that is needed here.
    """
    config = _read_json(folder / "config.json")
    if config.get("model_type", MODEL_TYPE) not in (MODEL_TYPE, OWN_TYPE, TEXT_TYPE, *VISION_TYPES):
        raise UserError(
            f"{folder / 'config.json'} describes a model of type {config['model_type']!r}: only {MODEL_TYPE}, {OWN_TYPE}, "
            f"the image halves of {', '.join(VISION_TYPES)} and the embeddings of {TEXT_TYPE} are read"
        )
    return config


def stored_extras(folder: Path, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what our own folders hold beside the parameters, as our checkpoints hold it; empty for another folder.

    The tokenizer is read from tokenizer.json and tokenizer_config.json, everything else from config.json. Raises UserError
    where a size in config.json contradicts the parameters.
    """
    config = _read_json(folder / "config.json")
    if config.get("model_type") != OWN_TYPE:
        return {}
    _check_sizes(folder / "config.json", config, state)
    extras = config.get(OWN_TYPE)
    if not isinstance(extras, dict):
        raise UserError(f"{folder / 'config.json'} has no dictionary {OWN_TYPE!r}: write the folder again")
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        return extras
    roles = _read_json(folder / "tokenizer_config.json")
    special = {role: _token(roles[role]) for role in ROLES if roles.get(role)}
    return {**extras, "tokenizer": {"json": tokenizer.read_text(encoding="utf-8"), "special": special}}


def _token(value: Any) -> Any:
    """Return a token as text; tokenizer_config.json may have it as an object."""
    return value.get("content") if isinstance(value, dict) else value


def _check_sizes(path: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Raise UserError where a size in config.json is not the one of the parameters."""
    for key, (name, axis) in _SIZES.items():
        value, tensor = config.get(key), state.get(name)
        if key in config and tensor is not None and (axis >= tensor.ndim or not _is_size(value, tensor.shape[axis])):
            raise UserError(f"{path}: {key} {value!r} contradicts the weights, where {name} is {tuple(tensor.shape)}")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise UserError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not names with values")
    return content


def checked_config(folder: Path, state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return config.json with the defaults of transformers; None where there is no such file.

    Raises UserError, with the key, where a value contradicts the parameters, or vlc's encoder does not have it.
    """
    config = read_config(folder)
    if not config:
        return None
    config = ViltConfig().to_dict() | {"id2label": {}} | config
    path = folder / "config.json"
    _check_sizes(path, config, state)
    for key, known in _FIXED.items():
        value = config[key]
        if not any(value is other or (type(value) is type(other) and value == other) for other in known):
            raise UserError(
                f"{path} asks for {key} {value!r}, but vlc's encoder has {known[0]!r}: results would differ"
            )
    blocks = {name.split(".")[2] for name in state if name.startswith("encoder.blocks.")}
    if not _is_size(depth := config["num_hidden_layers"], len(blocks)):
        raise UserError(f"{path}: num_hidden_layers {depth!r} contradicts the weights, which have {len(blocks)} blocks")
    _check_grid(path, config, state)
    width = state["encoder.patch_embed.proj.weight"].shape[0]
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    if type(heads) is not int or heads < 1 or width % heads:
        raise UserError(f"{path}: num_attention_heads {heads!r} does not divide the width {width}")
    if type(eps) is not float or not 0 < eps < 1:
        raise UserError(f"{path}: layer_norm_eps {eps!r} is not a number between 0 and 1")
    _check_pixels(folder / "preprocessor_config.json")
    return config


def vision_numbers(folder: Path) -> Numbers:
    """Return heads, epsilon and activation of an image half as config.json states them, with transformers' defaults.

    None where there is no such file.
    """
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in VISION_TYPES:
        return None, None, None
    config, default = config.get("vision_config", config), CONFIG_MAPPING[kind]()
    default = getattr(default, "vision_config", default)
    keys = ("num_attention_heads", "layer_norm_eps", "hidden_act")
    heads, eps, activation = (config.get(key, getattr(default, key)) for key in keys)
    if config.get("use_swiglu_ffn"):  # DINOv2's giant
        activation = "silu"
    return heads, eps, _ACTIVATIONS.get(activation, activation)


def _is_size(value: Any, size: int) -> bool:
    """Whether a value of config.json is this size; a square may be given by both of its sides."""
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(type(side) is int and side == size for side in sides)


def _check_grid(path: Path, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    table, image_size = state.get("encoder.pos_embed"), config["image_size"]
    if table is None or table.ndim != 3:
        return
    patch_size = state["encoder.patch_embed.proj.weight"].shape[-1]
    grid = math.isqrt(max(table.shape[1] - 1, 0))
    sides = image_size if isinstance(image_size, list) else [image_size]
    if not sides or not all(type(side) is int and side // patch_size == grid for side in sides):
        raise UserError(
            f"{path}: image_size {image_size!r} contradicts the weights, which have positions for {table.shape[1] - 1} "
            f"patches of {patch_size} pixels"
        )


def _check_pixels(path: Path) -> None:
    """Raise UserError where images are not normalised to [-1, 1], as vlc does for ViLT."""
    config, half = _read_json(path), [0.5] * 3
    for key in ("image_mean", "image_std"):
        if config.get(key, half) != half:
            raise UserError(
                f"{path} asks for {key} {config[key]!r}, which changes the results: vlc has {half} for ViLT"
            )


def answers(folder: Path, config: Mapping[str, Any], num_labels: int) -> list[str]:
    """Return the names of the classes in order, "" for a class without; empty where the configuration has no names.

    Raises UserError where it names other labels than the classifier's num_labels.
    """
    labels = config.get("id2label") or {}
    known = {str(label) for label in range(num_labels)}
    if not isinstance(labels, dict) or not set(labels) <= known:
        raise UserError(f"{folder / 'config.json'}: id2label names others than the {num_labels} labels of the weights")
    names = {int(label): str(name) for label, name in labels.items()}
    if all(name == f"LABEL_{label}" for label, name in names.items()):  # transformers' default
        return []
    return [names.get(label, "") for label in range(max(names) + 1)]
