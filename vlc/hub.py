"""Folders as transformers saves models and the model hub hands them out: config.json beside the weights."""

import json
from pathlib import Path
from typing import Any

from vlc.errors import MissingFile, UserError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there is read
MODEL_TYPE = "vilt"


def find_weights(folder: Path) -> Path:
    """The file of weights in a folder. Raises MissingFile, or UserError if config.json is that of another model."""
    read_config(folder)
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise MissingFile(f"Checkpoint {folder} is a folder without weights: expected {' or '.join(WEIGHTS)} in it")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder, empty where there is none. Raises UserError for a model that vlc does not know."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
        found = config.get("model_type") if isinstance(config, dict) else None
        raise UserError(f"{path} describes a model of type {found!r}, not {MODEL_TYPE!r}: only ViLT's are read")
    if config.get("hidden_act", "gelu") != "gelu":
        raise UserError(f"{path} asks for the activation {config['hidden_act']!r}, but vlc's blocks have 'gelu'")
    return config


def answers(config: dict[str, Any]) -> list[str]:
    """The names of the classes in order, "" for those without; none where the configuration gives no names."""
    names = {int(label): str(name) for label, name in config.get("id2label", {}).items()}
    if all(name == f"LABEL_{label}" for label, name in names.items()):  # what transformers fills in
        return []
    return [names.get(label, "") for label in range(max(names) + 1)]
