"""Files of parameters, recognised by their content: PyTorch's two formats, safetensors, and indices of several files."""

import json
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vlc.checkpoint import checksums, torch_file
from vlc.checkpoint.torch_file import StandIn, StoredTensor, TensorWithoutReader
from vlc.common.errors import MissingFile, UserError

# The errors of the readers, which depend on where a file is broken.
_READ_ERRORS: tuple[type[Exception], ...] = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    SafetensorError,
    EOFError,
    OSError,
    *(ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, MemoryError, AssertionError),
)
_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_SHARED = 4  # the most values of all parameters for each stored value; tied weights use one twice
_INDEX_LIMIT = 2**26  # bytes of an index of several files

# Other files that people have under the name of a checkpoint, by their first bytes.
_OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: fetch that with `git lfs pull`"),
    (b"<", "a page of HTML or XML, as a failed download leaves it: download the file again"),
    (b"\x1f\x8b", "compressed with gzip: unpack it"),
    (b"\x89HDF", "an HDF5 file, as TensorFlow writes it: save the weights with torch.save or as safetensors"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
)


@dataclass(frozen=True)
class Weights:
    """The content of a file of parameters.

    state: parameters by name, without the prefixes of wrappers.
    extras: the content that our own files have under "vlc".
    """

    path: Path
    state: dict[str, Tensor]
    extras: Any = field(default_factory=dict)


def read_weights(path: Path, part: str | None = None) -> Weights:
    """Read a file; nothing in it is executed. Raises MissingFile, or UserError where it is damaged or of no known kind.

    part: the name that the parameters lie under; they are empty where it is missing. None: they lie at the top, or under
        "state_dict" or "model".
    """
    if not path.is_file():
        raise MissingFile(f"Checkpoint {path} does not exist")
    try:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        with path.open("rb") as file:
            start = file.read(64)
        if start.startswith((torch_file.ZIP_START, torch_file.LEGACY_START)):
            return _read_torch(path, part)
        reader = _read_safetensors if _is_safetensors(start) else _read_index if start.lstrip()[:1] == b"{" else None
        if reader is not None:
            return Weights(path, {}) if part else reader(path)
        other = next((text for mark, text in _OTHERS if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(mark)), None)
        raise ValueError(
            f"it is {other}" if other else "it is neither a torch file nor safetensors, whatever its suffix"
        )
    except UserError:
        raise
    except _READ_ERRORS as error:
        raise UserError(f"{path} is not a readable checkpoint: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return f"it lacks {text}" if isinstance(error, KeyError) else text


def _plain(name: str) -> str:
    """Return a parameter's name without the prefixes of torch.compile, DDP and FSDP."""
    name = _WRAPPERS.sub("", name)
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _plain_names(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the plain name of each name. Raises UserError where two are the same."""
    plain = {name: _plain(name) for name in names}
    if len(set(plain.values())) < len(plain):
        name, twice = next(item for item in plain.items() if list(plain.values()).count(item[1]) > 1)
        raise UserError(f"{path} holds {twice} twice, once as {name}: leave one of them out")
    return plain


def _read_torch(path: Path, part: str | None) -> Weights:
    with torch_file.opened(path) as content:
        if isinstance(content, StandIn) and not content:
            raise UserError(f"{path} holds an object of a class, not its parameters: save its state_dict() instead")
        if not isinstance(content, Mapping):
            raise UserError(f"{path} is not a checkpoint: it holds a {type(content).__name__}")
        keys = (part,) if part else ("state_dict", "model")
        found = next((content[key] for key in keys if isinstance(content.get(key), Mapping)), {} if part else content)
        unread = [name for name, value in found.items() if isinstance(value, TensorWithoutReader)]
        if found is not content:
            unread += [name for name, value in found.items() if isinstance(value, StandIn)]
        if unread:
            raise UserError(
                f"{path} holds {unread[0]} in a form that is not read: store it as an ordinary dense tensor"
            )
        stored = {name: value for name, value in found.items() if isinstance(name, str) and type(value) is StoredTensor}
        for tensor in stored.values():
            tensor.check()
        bytes_of = {id(tensor.storage): tensor.storage.num_bytes for tensor in stored.values()}
        if sum(tensor.num_bytes for tensor in stored.values()) > _SHARED * sum(bytes_of.values()):
            raise ValueError("its parameters use the same stored values again and again")
        names = _plain_names(path, stored)
        state = {names[name]: tensor.load() for name, tensor in stored.items()}
        return Weights(path, state, content.get("vlc"))


def _is_safetensors(start: bytes) -> bool:
    """Whether a file begins with the length of a JSON header, and with that header."""
    return len(start) > 8 and start[8:9] == b"{" and not start.startswith(b"{")


def _read_safetensors(path: Path) -> Weights:
    with TemporaryDirectory() as folder:
        link = Path(folder) / "link"  # the library takes no names that are not UTF-8
        link.symlink_to(path.resolve())
        with safe_open(link, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata() or {}
    extras = metadata.get("vlc", "{}")
    if "checksums" in metadata:
        expected = json.loads(metadata["checksums"])
        bad = checksums.mismatches(state, expected["tensors"])
        if checksums.checksum(extras.encode()) != expected["extras"]:
            bad.append("what stands beside the parameters")
        if bad:
            raise UserError(
                f"{path} is damaged: {bad[0]} does not match its checksum ({len(bad)} of {len(state)}). Copy the file "
                "again, or write it anew from the checkpoint that it came from."
            )
    names = _plain_names(path, state)
    return Weights(path, {names[name]: tensor for name, tensor in state.items()}, json.loads(extras))


def _read_index(path: Path) -> Weights:
    """Read the parameters of all files that an index names; they lie beside it."""
    if path.stat().st_size > _INDEX_LIMIT:
        raise ValueError(f"an index of more than {_INDEX_LIMIT:,} bytes")
    index = json.loads(path.read_text(encoding="utf-8"))
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError("it is JSON, but no index of several files (it has no weight_map)")
    state: dict[str, Tensor] = {}
    owners: dict[str, str] = {}
    for name in dict.fromkeys(places.values()):
        if not isinstance(name, str) or name in ("", ".", "..") or "\0" in name or Path(name).name != name:
            raise UserError(f"{path} names the file {name!r}: only files in its own folder are read")
        shard = path.with_name(name)
        if not shard.is_file():
            raise MissingFile(
                f"{path} names {name}, which does not lie beside it: download the checkpoint's other files"
            )
        with shard.open("rb") as file:
            if file.read(1) == b"{":
                raise UserError(f"{path} names {name}, which holds no parameters")
        for key, tensor in read_weights(shard).state.items():
            if key in state:
                raise UserError(f"{path}: {key} lies in both {owners[key]} and {name}")
            state[key], owners[key] = tensor, name
    lacking = {_plain(key) for key in places} - set(state)
    if lacking:
        raise UserError(f"{path} names {min(lacking)} and {len(lacking) - 1} others that its files lack")
    return Weights(path, state)


def save_safetensors(state: Mapping[str, Tensor], extras: dict[str, Any], path: Path) -> None:
    """Write parameters as a file of safetensors, with the checksums that `read_weights` compares."""
    state = {name: tensor.clone() for name, tensor in state.items()}  # slices of a tensor share its memory
    beside = json.dumps(extras)
    sums = {"tensors": checksums.checksums(state), "extras": checksums.checksum(beside.encode())}
    save_file(state, path, metadata={"format": "pt", "vlc": beside, "checksums": json.dumps(sums)})
