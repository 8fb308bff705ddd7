"""Files of parameters: recognised by content, named where they are something else, and put together from several."""

import gzip
import json

import pytest
import torch
from safetensors.torch import save_file

from vlc.checkpoint.weight_files import read_weights
from vlc.common.errors import MissingFile, UserError

STATE = {f"encoder.{name}": torch.arange(6.0) + number for number, name in enumerate("abc")}


def _same(state) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[name], value) for name, value in STATE.items())


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".bin", ".txt", ""])
def test_suffixes_do_not_matter(tmp_path, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    assert _same(read_weights(path).state)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "module.module.", "_fsdp_wrapped_module."],
)
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_prefixes_of_wrappers(tmp_path, prefix, kind):
    state = {prefix + name: value for name, value in STATE.items()}
    save_file(state, tmp_path / "x") if kind == "safetensors" else torch.save(state, tmp_path / "x")
    assert _same(read_weights(tmp_path / "x").state)


def test_prefixes_inside(tmp_path):
    torch.save({name.replace("encoder.", "encoder._orig_mod."): value for name, value in STATE.items()}, tmp_path / "x")
    assert _same(read_weights(tmp_path / "x").state)


def test_compiled_module(tmp_path):
    torch.save(torch.compile(torch.nn.Linear(2, 2)).state_dict(), tmp_path / "x.pt")
    assert set(read_weights(tmp_path / "x.pt").state) == {"weight", "bias"}


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_one_parameter_under_two_names(tmp_path, kind):
    state = {"module.a": torch.zeros(1), "a": torch.ones(1)}
    save_file(state, tmp_path / "x") if kind == "safetensors" else torch.save(state, tmp_path / "x")
    with pytest.raises(UserError, match="holds a twice"):
        read_weights(tmp_path / "x")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>Not found</html>", "page of HTML.*download the file again"),
        (b"\xef\xbb\xbf\n <html>", "page of HTML"),
        (gzip.compress(b"x", mtime=0), "gzip: unpack it"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"Entry not found", "neither a torch file nor safetensors"),
        (b'{"error": "Entry not found"}', "no index of several files"),
        (b"[1, 2]", "neither a torch file"),
        (b"\x00" * 1000, "neither a torch file"),
        (b'{"a":' * 100_000, "not a readable checkpoint"),
        ((2**40).to_bytes(8, "little") + b'{"a": 1}', "not a readable checkpoint"),
        ((100).to_bytes(8, "little") + b"{" * 100, "not a readable checkpoint"),
    ],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_what_else_people_have_is_named(tmp_path, content, named, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=named) as refused:
        read_weights(path)
    assert "weights_only" not in str(refused.value)


def test_safetensors_that_declare_more_than_they_hold(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(UserError, match="not a readable checkpoint"):
        read_weights(tmp_path / "x.safetensors")


class TestShards:
    @pytest.fixture(params=["model.safetensors", "pytorch_model.bin"])
    def index(self, request, tmp_path):
        stem, _, suffix = request.param.rpartition(".")
        places = {}
        for number, name in enumerate(STATE):
            places[name] = f"{stem}-{number // 2:05}-of-00002.{suffix}"
        for shard in set(places.values()):
            state = {name: STATE[name] for name in STATE if places[name] == shard}
            (save_file if suffix == "safetensors" else torch.save)(state, tmp_path / shard)
        path = tmp_path / f"{request.param}.index.json"
        path.write_text(json.dumps({"metadata": {"total_size": 72}, "weight_map": places}))
        return path

    def _changed(self, index, name, value):
        content = json.loads(index.read_text())
        content["weight_map"][name] = value
        index.write_text(json.dumps(content))

    def test_all_are_read(self, index):
        assert _same(read_weights(index).state)

    def test_missing_file(self, index):
        shard = json.loads(index.read_text())["weight_map"]["encoder.c"]
        (index.parent / shard).unlink()
        with pytest.raises(MissingFile, match=f"{shard}, which does not lie beside it"):
            read_weights(index)

    @pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b", "..", "", 3, "a\0b"])
    def test_files_elsewhere(self, index, name):
        self._changed(index, "encoder.c", name)
        with pytest.raises(UserError, match="only files in its own folder are read"):
            read_weights(index)

    def test_itself(self, index):
        self._changed(index, "encoder.c", index.name)
        with pytest.raises(UserError, match="holds no parameters"):
            read_weights(index)

    def test_parameter_that_no_file_has(self, index):
        self._changed(index, "encoder.d", json.loads(index.read_text())["weight_map"]["encoder.c"])
        with pytest.raises(UserError, match=r"names encoder\.d"):
            read_weights(index)

    def test_parameter_in_two_files(self, index):
        places = json.loads(index.read_text())["weight_map"]
        write = save_file if index.name.startswith("model") else torch.save
        write({name: STATE[name] for name in ("encoder.c", "encoder.a")}, index.parent / places["encoder.c"])
        with pytest.raises(UserError, match=r"encoder\.a lies in both"):
            read_weights(index)
