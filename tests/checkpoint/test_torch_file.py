"""PyTorch's files: read as torch reads them, with nothing executed and nothing allocated that the file does not hold."""

import argparse
import io
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import damaged_checkpoints
from vlc.checkpoint import torch_file, weights
from vlc.checkpoint.checkpoint_io import CheckpointIO
from vlc.checkpoint.formats import LAYOUTS
from vlc.checkpoint.weight_files import read_weights
from vlc.common.errors import UserError

CASES = Path(__file__).parents[1] / "cases/checkpoint_numpy"


def _tensors() -> dict[str, torch.Tensor]:
    whole = torch.arange(24.0).reshape(4, 6)
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn]
    return {
        "whole": whole,
        "transposed": whole.T,
        "part": whole[1:3, 2:4],
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        **{str(kind): torch.arange(4).to(kind) for kind in kinds},
    }


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 5}])
@pytest.mark.parametrize("under", ["", "state_dict", "model"])
def test_tensors_are_those_that_torch_reads(tmp_path, options, under):
    state = OrderedDict(_tensors())
    torch.save({under: state, "epoch": 3} if under else state, tmp_path / "x.pt", **options)
    read = read_weights(tmp_path / "x.pt").state
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].float(), tensor.detach().float())
    assert read["whole"].data_ptr() == read["transposed"].data_ptr(), "they share memory, as they did"


@pytest.mark.parametrize("name", ["zip.pth", "old_format_namespace.pth"])
def test_numpy_numbers_and_a_namespace_beside_the_weights(name):
    assert len(read_weights(CASES / name).state) == 1


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_objects_beside_the_weights(tmp_path, options):
    beside = {
        "loss": np.float64(1.5),
        "table": np.arange(3),
        "args": argparse.Namespace(lr=np.float32(1)),
        "path": Path("x"),
        "counts": Counter("abca"),
        "default": defaultdict(list, a=[1]),
        "set": {1, 2},
        "by tuple": {(1, (2, 3)): 4},
        "random": np.random.default_rng(0).bit_generator.state,
        "generator": torch.get_rng_state(),
        "by class": {argparse.Namespace: torch.ones(1)},
    }
    torch.save({"state_dict": {"a": torch.ones(2)}, **beside}, tmp_path / "x.pt", **options)
    assert read_weights(tmp_path / "x.pt").state["a"].tolist() == [1, 1]


# -- hostile files


class _Touch:
    """Makes a file when it is unpickled as pickle does it."""

    def __init__(self, path: Path, how: str):
        self.path, self.how = str(path), how

    def __reduce__(self):
        if self.how == "exec":
            return exec, (f"open({self.path!r}, 'w')",)
        if self.how == "system":
            import os

            return os.system, (f"touch {self.path}",)
        if self.how == "getattr":
            return getattr, (Path(self.path), "touch")
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("how", ["exec", "system", "getattr", "touch"])
@pytest.mark.parametrize("place", ["beside", "among", "as the whole"])
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_nothing_is_executed(tmp_path, how, place, options):
    ran, attack = tmp_path / "ran", _Touch(tmp_path / "ran", how)
    state = {"encoder.patch_embed.proj.weight": torch.ones(2, 3, 4, 4)}
    content = {"beside": {"state_dict": state, "evil": attack}, "among": {"state_dict": state | {"evil": attack}}}
    torch.save(content.get(place, attack), tmp_path / "x.pt", **options)
    if place == "beside":
        assert set(weights.read(tmp_path / "x.pt").state) == set(state)
    else:
        with pytest.raises(UserError):
            weights.read(tmp_path / "x.pt")
    assert not ran.exists()
    if how != "getattr":
        torch.load(tmp_path / "x.pt", weights_only=False)
        assert ran.exists(), "the attack works where it is let"


def _zip(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, **records: bytes) -> Path:
    """A file like torch's around a pickle of our own making; records: of storages, by number."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/byteorder", b"little")
        for name, content in records.items():
            archive.writestr(f"x/data/{name.removeprefix('_')}", content)
    return path


def _pickled_tensor(count: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """{"state_dict": {"a": tensor}} as torch describes a float32 tensor in storage 0 of `count` values."""

    class Storage:
        pass

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            return "storage", torch.FloatStorage, "0", "cpu", count if isinstance(value, Storage) else None

        def save(self, value, save_persistent_id=True):
            super().save(value, isinstance(value, Storage))

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, shape, stride, False, OrderedDict())

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"state_dict": {"a": Tensor()}})
    return buffer.getvalue()


def test_a_tensor_of_our_own_making_is_read(tmp_path):
    path = _zip(tmp_path / "x.pt", _pickled_tensor(6, 1, (2, 2), (2, 1)), _0=np.arange(6, dtype=np.float32).tobytes())
    assert read_weights(path).state["a"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("count", "offset", "shape", "stride"),
    [
        (1, 0, (10**6, 10**6), (0, 0)),  # four bytes seen as 10 ** 12 values
        (10**12, 0, (10**12,), (1,)),
        (6, 0, (7,), (1,)),
        (6, 5, (2,), (1,)),
        (6, 0, (2, 2), (5, 1)),
        (6, -1, (2,), (1,)),
        (6, 3, (2,), (-1,)),
        (6, 0, (-2,), (1,)),
        (6, 0, (2,), (2**70,)),
        (6, 0, (2, 2), (1,)),
        (-6, 0, (2,), (1,)),
    ],
)
def test_tensors_larger_than_their_bytes(tmp_path, count, offset, shape, stride):
    path = _zip(tmp_path / "x.pt", _pickled_tensor(count, offset, shape, stride), _0=bytes(24))
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_weights(path)


def test_one_storage_seen_a_thousand_times(tmp_path):
    tensor = torch.zeros(10_000)
    torch.save({f"a{number}": tensor.view(100, 100) for number in range(1000)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="the same stored values again and again"):
        read_weights(tmp_path / "x.pt")


def test_an_archive_that_inflates(tmp_path):
    path = _zip(tmp_path / "x.pt", _pickled_tensor(10**7, 0, (10**7,), (1,)), zipfile.ZIP_DEFLATED, _0=bytes(4 * 10**7))
    with pytest.raises(UserError, match=r"has [\d,]+ bytes and declares to hold 40,0"):
        read_weights(path)
    values = np.random.default_rng(0).random(10_000, dtype=np.float32)
    path = _zip(
        tmp_path / "y.pt", _pickled_tensor(10_000, 0, (10_000,), (1,)), zipfile.ZIP_DEFLATED, _0=values.tobytes()
    )
    assert np.array_equal(read_weights(path).state["a"].numpy(), values), "a file that was zipped again is read"


def _deep(end: bytes, depth: int = 10**6) -> bytes:
    """A pickle of containers in containers, used as the key of a dictionary."""
    return b"\x80\x02}" + b")" + b"\x85" * depth + end + b"K\x01s."


_HOSTILE = {
    "deep tuple as a key": _deep(b""),
    "tuple that holds itself in twos": b"\x80\x02})" + b"2\x86" * 200 + b"K\x01s.",
    "deep list": b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".",
    "memo of four thousand million": b"\x80\x02}r" + struct.pack("<I", 2**32 - 2) + b".",
    "bytes without content": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "array without content": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "text without content": b"\x80\x02X" + struct.pack("<I", 2**32 - 1) + b".",
    "frame without content": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b".",
    "number of a million digits": b"\x80\x02I" + b"9" * 10**6 + b"\n.",
    "extension": b"\x80\x02\x82\x01.",
    "calls itself": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00(h\x00N(h\x00NNNtNtR.",
    "storage by a list": b"\x80\x02]Q.",
    "nothing on the stack": b"\x80\x02R.",
    "no pickle": b"\xff\xff\xff",
    "empty": b"",
}


@pytest.mark.parametrize("name", _HOSTILE)
@pytest.mark.parametrize("legacy", [False, True])
def test_hostile_pickles_end_in_a_sentence(tmp_path, name, legacy):
    path = tmp_path / "x.pt"
    if legacy:
        head = torch_file.LEGACY_START + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
        path.write_bytes(head + _HOSTILE[name] + pickle.dumps([], 2))
    else:
        _zip(path, _HOSTILE[name])
    with pytest.raises(UserError):
        weights.read(path)


def test_archives_of_other_kinds(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="zip archive, but not one that torch.save writes"):
        read_weights(tmp_path / "x.zip")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    with pytest.raises(UserError, match="is a TorchScript program: save the state_dict"):
        read_weights(tmp_path / "x.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(UserError, match=r"object of a class, not its parameters: save its state_dict\(\)"):
        read_weights(tmp_path / "module.pt")


def test_other_kinds_of_tensors_are_named(tmp_path):
    torch.save({"state_dict": {"a": torch.eye(2).to_sparse()}}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="holds a in a form that is not read"):
        read_weights(tmp_path / "x.pt")


# -- damage


@pytest.fixture
def small(tmp_path) -> weights.Checkpoint:
    """Few parameters, so that most of the bytes of its files are those of the format."""
    names = {"encoder.patch_embed.proj.weight": (4, 3, 2, 2), "encoder.cls_token": (1, 1, 4), "encoder.norm.bias": (4,)}
    state = {name: torch.randn(shape) for name, shape in names.items()}
    return weights.Checkpoint(tmp_path, LAYOUTS["vlc"], state, (), {"answers": ["yes", "no"]})


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_damage_is_found_or_harmless(small, tmp_path, suffix):
    weights.export(small, tmp_path / f"x{suffix}", "vlc")
    found = damaged_checkpoints.outcomes(tmp_path / f"x{suffix}", tmp_path, tries=400)
    assert found["clear"] > 150
    assert not found["silent"]
    assert not found["raw"]


def test_whole_files_are_verified(tmp_path):
    state, beside = {"a": torch.zeros(1000)}, {"optimizer_states": [torch.full((1000,), 7.0)]}
    torch.save({"state_dict": state, **beside}, tmp_path / "x.ckpt")
    torch_file.verify(tmp_path / "x.ckpt")
    content = bytearray((tmp_path / "x.ckpt").read_bytes())
    content[content.index(struct.pack("<f", 7.0) * 9) + 100] ^= 1
    (tmp_path / "x.ckpt").write_bytes(content)
    read_weights(tmp_path / "x.ckpt")  # the weights are whole
    for read in (torch_file.verify, CheckpointIO().load_checkpoint):
        with pytest.raises(UserError, match=r"is damaged: its record .*data/1 does not match its checksum"):
            read(tmp_path / "x.ckpt")
    (tmp_path / "x.ckpt").write_bytes(content[:2000])
    with pytest.raises(UserError, match="is damaged"):
        torch_file.verify(tmp_path / "x.ckpt")


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    torch_file.verify(tmp_path / "x.pt")
    assert read_weights(tmp_path / "x.pt").state["a"].tolist() == [1, 1, 1]
