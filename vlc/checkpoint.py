"""Checkpoints of this and other projects: read by recognising the file, loaded strictly with a report, exported.

Files are never unpickled as code: torch files are read with weights_only=True, and classes they refer to are replaced
by empty stand-ins.
"""

import argparse
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vlc import hub
from vlc.errors import MissingFile, UserError
from vlc.formats import FORMATS, Format
from vlc.model.embed import resize_positions
from vlc.model.sizes import ENCODERS
from vlc.terminal import printable

# What torch.load raises for files it cannot read, depending on where they are broken.
_READ_ERRORS = (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, IndexError, TypeError, OSError)
_READ_ERRORS += (AttributeError, struct.error, SafetensorError)


@dataclass(frozen=True)
class Checkpoint:
    """A file's parameters under our names. dropped: keys left out on purpose. extras: what we wrote beside them.

    heads: of attention, which parameters do not tell; None where nothing else does.
    """

    path: Path
    layout: Format
    state: dict[str, Tensor]
    dropped: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    heads: int | None = None


@dataclass
class LoadReport:
    """What became of every parameter; printed once."""

    path: Path
    layout: str
    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)  # of the loaded ones, those that start from another parameter
    new: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)  # of the new ones, those that the file has in another shape

    def __str__(self) -> str:
        rows = (
            ("loaded", self.loaded, _by_part(self.loaded)),
            ("resized", self.resized, ", ".join(self.resized)),
            ("started from others", self.derived, ", ".join(self.derived)),
            ("new", self.new, "; ".join([_by_part(self.new), *self.misfits])),
            ("dropped on purpose", self.dropped, _by_part(self.dropped)),
        )
        rows = [row for row in rows if row[1] or row[0] != "started from others"]
        lines = [f"  {title:<20}{len(names):>4}  {text}".rstrip() for title, names, text in rows]
        return "\n".join(map(printable, [f"Checkpoint {self.path} (layout {self.layout})", *lines]))


def _by_part(names: list[str]) -> str:
    """Names counted by their first two components: "encoder.blocks 144, objectives.mlm 5"."""
    counts: dict[str, int] = {}
    for name in names:
        part = ".".join(name.split(".")[:2])
        counts[part] = counts.get(part, 0) + 1
    return ", ".join(f"{part} {count}" for part, count in counts.items())


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint and recognise its layout by the keys it has.

    Takes torch files (with the parameters at the top or under "state_dict" or "model"), safetensors, and folders of the
    model hub. Raises MissingFile, or UserError if the file is no checkpoint, of no known layout, or has unknown parameters.
    """
    path = Path(path)
    if path.is_dir():
        path = hub.find_weights(path)
    if not path.is_file():
        raise MissingFile(f"Checkpoint {path} does not exist")
    try:
        content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    except _READ_ERRORS as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} is not a readable checkpoint: {reason}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is not a checkpoint: it holds a {type(content).__name__}")
    found = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    state = {key.removeprefix("module."): value for key, value in found.items() if isinstance(value, Tensor)}
    layout = next((layout for layout in FORMATS.values() if layout.recognises(state)), None)
    if layout is None:
        markers = ", ".join(f"{layout.name} ({layout.marker})" for layout in FORMATS.values())
        raise UserError(
            f"{path} is not of a known layout. Known, by a key each has: {markers}. "
            f"The file has {', '.join(list(found)[:5]) or 'no keys'}, ..."
        )
    renamed, dropped, unknown = {}, [], []
    for key, value in layout.joined(state).items():
        try:
            name = layout.ours(key)
        except KeyError:
            unknown.append(key)
            continue
        if name is None:
            dropped.append(key)
        else:
            renamed[name] = value
    if unknown:
        raise UserError(f"{path} (layout {layout.name}) has parameters without a place here: {', '.join(unknown)}")
    extras, config = content.get("vlc") or {}, hub.read_config(path.parent) if layout.hub else {}
    if "objectives.vqa.classifier.0.weight" in renamed and (names := hub.answers(config)):
        extras = {"answers": names, **extras}
    return Checkpoint(path, layout, renamed, tuple(dropped), extras, config.get("num_attention_heads"))


def _load_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}
        return {"state_dict": state, "vlc": json.loads((file.metadata() or {}).get("vlc", "{}"))}


def _load_torch(path: Path) -> Any:
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
    stand_ins = [(type(name.rpartition(".")[2], (_StandIn,), {}), name) for name in names]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True)


class _StandIn:
    """Takes the place of a class that a file refers to (argparse.Namespace, callbacks): an empty, inert mapping."""

    def __new__(cls, *args, **kwargs):
        return OrderedDict()


_CHECK = "vit, max_text_len, vocab_size, vqav2_label_size and loss_names"


def load(module: nn.Module, checkpoint: Checkpoint, *, complete: bool = False, check: str = _CHECK) -> LoadReport:
    """Copy a checkpoint's parameters into a module, in place.

    Position tables are resized to the module's grid or text length, the token types to its number of images. Heads that
    the file lacks stay new. Raises UserError, changing nothing, if a parameter of the encoder is missing or does not
    fit (a file of the image half alone may lack the text half), and with complete=True if any parameter is.
    """
    heads = module.encoder.size.heads
    if checkpoint.heads not in (None, heads):
        raise UserError(f"{checkpoint.path} has {checkpoint.heads} attention heads, this model {heads}. Check {check}.")
    report = LoadReport(checkpoint.path, checkpoint.layout.name, dropped=list(checkpoint.dropped))
    taken, missing, misfits = {}, [], []
    own = module.state_dict()
    for name, tensor in own.items():
        if name not in checkpoint.state:
            source = _STARTS_FROM_MATCH.get(name)
            if source in checkpoint.state:
                taken[name] = checkpoint.state[source][1:]
                report.derived.append(name)
            else:
                missing.append(name)
            continue
        value = _fit(name, checkpoint.state[name], tensor)
        if value is None:
            misfits.append(f"{name} {tuple(checkpoint.state[name].shape)}, wanted {tuple(tensor.shape)}")
            missing.append(name)
        else:
            (report.loaded if value is checkpoint.state[name] else report.resized).append(name)
            taken[name] = value
    _check_missing(checkpoint, missing, misfits, complete, check)
    report.new, report.misfits = missing, misfits
    report.dropped += [name for name in checkpoint.state if name not in own]
    module.load_state_dict(taken, strict=False)
    return report


_ANSWER_HEAD = "objectives.vqa.classifier.3."


def with_answers(checkpoint: Checkpoint, answers: Sequence[str], module: nn.Module) -> tuple[Checkpoint, int]:
    """The checkpoint with its answer head's rows where another vocabulary has them, and how many answers it shares.

    answers: by label of the module, whose own rows stand where the checkpoint does not know the answer. A checkpoint that
    does not tell its answers, or has these very ones, stays as it is.
    """
    theirs, own = list(checkpoint.extras.get("answers") or ()), module.state_dict()
    names = {f"{_ANSWER_HEAD}weight", f"{_ANSWER_HEAD}bias"} & set(own) & set(checkpoint.state)
    as_large = all(own[name].shape == checkpoint.state[name].shape for name in names)
    if not theirs or not names or (theirs == list(answers) and as_large):
        return checkpoint, len(theirs)
    known = {answer: label for label, answer in reversed(list(enumerate(theirs))) if answer}
    pairs = [(label, known[answer]) for label, answer in enumerate(answers) if answer in known]
    here, there = (
        torch.tensor(labels, dtype=torch.int64) for labels in (zip(*pairs, strict=True) if pairs else ((), ()))
    )
    state = dict(checkpoint.state)
    for name in names:
        rows = own[name].clone()
        rows[here] = state[name][there].to(rows.dtype)
        state[name] = rows
    return replace(checkpoint, state=state), len(pairs)


# The ranking head of retrieval starts as row 1, "match", of the matching head.
_STARTS_FROM_MATCH = {
    "objectives.irtr.rank_output.weight": "objectives.itm.fc.weight",
    "objectives.irtr.rank_output.bias": "objectives.itm.fc.bias",
}


def _fit(name: str, value: Tensor, tensor: Tensor) -> Tensor | None:
    """The file's value in the module's shape; None if that cannot be done."""
    if value.shape == tensor.shape:
        return value
    if value.numel() == tensor.numel() == 1:  # a number was once stored without a dimension
        return value.reshape(tensor.shape)
    if value.ndim != tensor.ndim or value.shape[-1] != tensor.shape[-1]:
        return None
    if name.endswith("pos_embed"):
        return resize_positions(value, tensor.shape[1] - 1)
    if name == "encoder.token_types.weight":  # further images start as the first (row 1) does
        return torch.cat([value, value[1:2].expand(max(len(tensor) - len(value), 0), -1)])[: len(tensor)]
    if name == "encoder.text_embeddings.position_embeddings.weight":  # rows that the file lacks stay new
        return torch.cat([value[: len(tensor)], tensor[len(value) :]])
    return None


_TEXT_HALF = ("encoder.text_embeddings.", "encoder.token_types.", "encoder.pooler.")


def _check_missing(checkpoint: Checkpoint, missing: list[str], misfits: list[str], complete: bool, check: str) -> None:
    allowed = () if complete else ("objectives.", *(_TEXT_HALF if checkpoint.layout.image_only else ()))
    bad = [name for name in missing if not name.startswith(allowed)]
    if bad:
        shapes = f" Of another shape: {'; '.join(misfits[:5])}.{_fitting_sizes(checkpoint)}" if misfits else ""
        hint = " Evaluation needs every weight." if complete else ""
        raise UserError(
            f"{checkpoint.path} (layout {checkpoint.layout.name}) lacks {len(bad)} parameters of this model: "
            f"{_by_part(bad)}.{shapes}{hint} Check {check}."
        )


def _fitting_sizes(checkpoint: Checkpoint) -> str:
    """What to pass for the width and the patches of a file."""
    width, _, _, patch_size = checkpoint.state["encoder.patch_embed.proj.weight"].shape
    names = [name for name, size in ENCODERS.items() if (size.width, size.patch_size) == (width, patch_size)]
    return f" Its width and patches are those of vit={' or '.join(names)}." if names else ""


def export(checkpoint: Checkpoint, path: str | Path, layout: str) -> list[str]:
    """Write a checkpoint in another layout; returns our names of what that layout has no place for.

    The suffix decides the kind of file: .safetensors, or else a torch file as the project itself writes it.
    """
    if layout not in FORMATS:
        raise UserError(f"Unknown layout {layout!r}: expected one of {', '.join(FORMATS)}")
    target, left_out, state = FORMATS[layout], [], {}
    for name, tensor in checkpoint.state.items():
        try:
            state[target.theirs(name)] = tensor.contiguous()
        except KeyError:
            left_out.append(name)
    state = target.split(state)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        state = {name: tensor.clone() for name, tensor in state.items()}  # parts of one would share its memory
        save_file(state, path, metadata={"vlc": json.dumps(dict(checkpoint.extras))})
    else:
        torch.save({target.unwrap: state, "vlc": dict(checkpoint.extras)}, path)
    return left_out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vlc.checkpoint", description="Show or convert a checkpoint.")
    parser.add_argument("source", type=Path, help="checkpoint of any known layout")
    parser.add_argument("target", type=Path, nargs="?", help="file to write; .safetensors or any other suffix")
    parser.add_argument("--layout", choices=FORMATS, default="vlc", help="layout of the file to write")
    arguments = parser.parse_args()
    try:
        checkpoint = read(arguments.source)
        print(printable(f"{checkpoint.path}: layout {checkpoint.layout.name}, {_by_part(list(checkpoint.state))}"))
        if arguments.target:
            left_out = export(checkpoint, arguments.target, arguments.layout)
            without = f", without {_by_part(left_out)}" * bool(left_out)
            print(printable(f"Wrote {arguments.target} (layout {arguments.layout}){without}"))
    except UserError as error:
        parser.exit(2, f"{printable(error)}\n")


if __name__ == "__main__":
    main()
