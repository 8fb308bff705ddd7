"""Adapters of low rank in checkpoints: merged into the weights, or alone in a folder as peft has it.

A run's checkpoint names its layers as peft does: the weight W of a layer lies under base_layer, the adapter's two matrices
A (rank, inputs) and B (outputs, rank) beside it under lora_A and lora_B. Their sum is the weight W + alpha / rank * B A.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from vlc.checkpoint import checksums
from vlc.checkpoint.weight_files import Weights, read_weights, save_safetensors
from vlc.common.errors import MissingFile, UserError
from vlc.common.files import write_atomically

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # peft's names
_PREFIX = "base_model.model."  # which peft puts before a model's names
_BASE, _ADAPTER = ".base_layer.", ".default."  # peft's names of an adapted layer, and of the only adapter
_LARGEST = 2**20  # bytes of an adapter_config.json


def _has_adapters(state: Mapping[str, Tensor]) -> bool:
    return any(".lora_A." in name for name in state)


def _facts_of(weights: Weights) -> Mapping[str, Any]:
    """Return what `facts` returned for a file's adapters. Raises UserError where the file does not say it."""
    known = weights.extras.get("lora") if isinstance(weights.extras, dict) else None
    kinds = {"rank": int, "alpha": int | float, "dropout": int | float, "targets": list, "base": str, "frozen": dict}
    if not isinstance(known, dict) or not all(isinstance(known.get(name), kind) for name, kind in kinds.items()):
        raise UserError(
            f"{weights.path} is damaged or not ours: it has adapters, and does not say their scale and their base. peft "
            "merges adapters of other programs"
        )
    return known


def merged(weights: Weights) -> Weights:
    """Return the weights with the adapters added to them, under the names of a model without adapters.

    Weights without adapters stay as they are. Raises UserError where matrices or facts are missing or do not fit together.
    """
    if not _has_adapters(weights.state):
        return weights
    lora = _facts_of(weights)
    try:
        state = _summed(weights.state, lora["alpha"])
    except (KeyError, RuntimeError, IndexError) as error:
        raise UserError(
            f"{weights.path} is damaged: its adapters do not fit together ({str(error).splitlines()[0]})"
        ) from error
    extras = {key: value for key, value in weights.extras.items() if key != "lora"}
    return Weights(weights.path, state, extras)


def _summed(state: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    summed = {}
    for name, value in state.items():
        layer = name.removesuffix(f"{_BASE}weight")
        if layer != name:
            down, up = (state[f"{layer}.lora_{matrix}{_ADAPTER}weight"] for matrix in "AB")
            value = value + alpha / len(down) * (up @ down)
        if ".lora_" not in name:
            summed[name.replace(_BASE, ".")] = value
    return summed


def facts(state: Mapping[str, Tensor], base: Path, lora: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint stores of its adapters.

    state: the weights that they leave as the base has them.
    base: the checkpoint that has these weights.
    lora: the settings of the adapters.
    """
    return {**lora, "base": str(base), "frozen": checksums.checksums(state)}


def save(source: str | Path, folder: Path, part: str | None = None) -> tuple[int, str]:
    """Write the adapters of a run's checkpoint, and all else that it has trained, as a folder that peft reads.

    part: as in `vlc.checkpoint.weights.read`.

    Returns the number of values, and the base that they belong to. Raises UserError where the checkpoint has no adapters.
    """
    weights = read_weights(Path(source), part)
    if not _has_adapters(weights.state):
        raise UserError(f"{source} has no adapters: they are in checkpoints of runs with lora.rank above 0")
    lora = _facts_of(weights)
    own = {name: value for name, value in weights.state.items() if name.replace(_BASE, ".") not in lora["frozen"]}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": lora["base"],
        "r": lora["rank"],
        "lora_alpha": lora["alpha"],
        "lora_dropout": lora["dropout"],
        "target_modules": rf"encoder\.{target_pattern(lora['targets'])}",
        "bias": "none",
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with write_atomically(folder / WEIGHTS) as partial:
        save_safetensors({_PREFIX + name.replace(_ADAPTER, "."): own[name] for name in own}, weights.extras, partial)
    with write_atomically(folder / CONFIG) as partial:
        partial.write_text(json.dumps(config, indent=2), encoding="utf-8")
    return sum(value.numel() for value in own.values()), lora["base"]


def target_pattern(targets: Sequence[str]) -> str:
    """Return the regular expression of the names, inside of the encoder, of the layers that have an adapter."""
    return rf"blocks\.\d+\..*\b({'|'.join(map(re.escape, targets))})"


def base_of(folder: Path) -> Path:
    """Return where the base of a folder of adapters lies. Raises UserError where the folder does not say it."""
    path = folder / CONFIG
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST:,} bytes")
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
        places = [Path(base), folder / base]
        found = next((place for place in places if place.exists()), None)
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise UserError(f"{path} does not name the base of the adapters: {error}") from error
    if found is None:
        raise MissingFile(
            f"{folder} holds adapters of the checkpoint {base}, which does not exist: name its place in {path} "
            f"(base_model_name_or_path), or join them by python -m vlc.checkpoint {folder} OUT.ckpt --base CHECKPOINT"
        )
    return found


def completed(folder: Path, base: Path, state: Mapping[str, Tensor]) -> Weights:
    """Return the weights of a run: those of its base, and the adapters in a folder.

    base, state: the base, and its parameters under our names.

    Raises UserError where it is another base, or the folder was not written by `save`.
    """
    weights = read_weights(folder / WEIGHTS)
    lora = _facts_of(weights)
    kept = {name: state[name].float() for name in lora["frozen"] if name in state}
    if wrong := checksums.mismatches(kept, lora["frozen"]):
        raise UserError(
            f"{folder} holds adapters of the checkpoint {lora['base']}, and {base} is another one: {len(wrong)} of "
            f"{len(lora['frozen'])} weights differ, {wrong[0]} among them. Pass the checkpoint that they were trained on."
        )
    own = {
        re.sub(r"(\.lora_[AB])\.", rf"\1{_ADAPTER}", name.removeprefix(_PREFIX)): value
        for name, value in weights.state.items()
    }
    adapted = {name.partition(".lora_A.")[0] for name in own if ".lora_A." in name}
    for name, value in kept.items():
        layer, _, last = name.rpartition(".")
        own[f"{layer}{_BASE}{last}" if layer in adapted else name] = value
    return replace(weights, path=folder, state=own)
