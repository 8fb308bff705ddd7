"""Configuration files: plain values of known keys are read; nothing in a file runs, hangs or is passed over."""

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlc.common.errors import UserError
from vlc.configuration.config import RunError, given_keys, resolve
from vlc.configuration.config import ex as experiment
from vlc.configuration.config_files import MAX_BYTES, load_config_file
from vlc.configuration.recipes import loss_weights

YAML = """\
# a run of mine
per_gpu_batchsize: 8
learning_rate: 1e-4
end_lr: 2.5E-6
data_root: "2024"
datasets: [coco, vg]
max_steps: null
loss_names:
  mlm: 0.5
whole_word_masking: true
"""
VALUES = {
    "per_gpu_batchsize": 8,
    "learning_rate": 1e-4,
    "end_lr": 2.5e-6,
    "data_root": "2024",
    "datasets": ["coco", "vg"],
    "max_steps": None,
    "loss_names": {"mlm": 0.5},
    "whole_word_masking": True,
}


@pytest.mark.parametrize(
    ("name", "content"), [("run.yaml", YAML), ("run.yml", YAML), ("run.json", "\ufeff" + json.dumps(VALUES))]
)
def test_plain_files_are_named_configs(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    assert load_config_file(path) == VALUES
    config = resolve(str(path), "step50k")
    expected = VALUES | {"max_steps": 50_000, "loss_names": loss_weights(itm=1, mlm=0.5)}
    assert {key: config[key] for key in VALUES} == expected, "later named configs win"
    assert resolve(str(path), learning_rate=1.0)["learning_rate"] == 1
    assert given_keys(experiment._create_run("print_config", {"seed": 3}, [str(path)])) == {"seed", *VALUES}


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _hostile(proof: Path) -> dict[str, bytes | str]:
    """Files that make `proof`, or use up the machine, where more is read of them than plain values."""
    touch = f"touch {proof}"
    levels = "\n".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 30))
    return {
        "code.pickle": pickle.dumps(Attack(proof)),
        "code.pkl": pickle.dumps(Attack(proof)),
        "reduce.json": json.dumps({"seed": {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [touch]}]}}),
        "top.json": json.dumps({"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [touch]}]}),
        "object.json": json.dumps({"log_dir": {"py/object": "pathlib.Path", "py/newargs": [str(proof)]}}),
        "newobj.json": json.dumps({"seed": {"py/object": "subprocess.Popen", "py/newargsex": [[touch], {"shell": 1}]}}),
        "repr.json": json.dumps({"seed": {"py/repr": f"os/os.system('{touch}')"}}),
        "type.json": json.dumps({"tokenizer": {"py/type": "os.system"}}),
        "apply.yaml": f"seed: !!python/object/apply:os.system ['{touch}']",
        "new.yaml": f"seed: !!python/object/new:os.system ['{touch}']",
        "top.yaml": f"!!python/object/apply:os.system ['{touch}']",
        "name.yml": "tokenizer: !!python/name:os.system",
        "tag.yaml": "tokenizer: !mine [1]",
        "laughs.yaml": f"b0: &b0 [lol, lol]\n{levels}\nseed: *b29",
        "alias.yaml": "datasets: &d [coco]\nsplits: *d",
        "itself.yaml": "datasets: &d [*d]",
        "merge.yaml": "seed: {<<: {a: 1}}",
        "deep.yaml": "seed: " + "[" * 20_000,
        "deeper.yaml": "".join(" " * n + "a:\n" for n in range(300)),
        "braces.yaml": "{" * 60_000,
        "deep.json": "[" * 60_000,
        "keys.json": '{"seed":' * 7_000,
        "long.json": json.dumps({"exp_name": "a" * MAX_BYTES}),
        "long.yaml": "#" * (10 * MAX_BYTES),
        "number.json": '{"seed": ' + "9" * 60_000 + "}",
        "number.yaml": "seed: 0x" + "f" * 60_000,
        "sixty.yaml": "seed: " + ":".join(["59"] * 20_000),
        "infinite.yaml": "learning_rate: .inf",
        "nan.json": '{"learning_rate": NaN}',
        "large.json": '{"learning_rate": 1e999}',
        "many.yaml": "seed: [" + "a," * 30_000 + "]",
        "keys.yaml": "\n".join(f"k{n}: 1" for n in range(7_000)),
        "date.yaml": "exp_name: 2024-01-01",
        "bytes.yaml": "exp_name: !!binary aGFsbG8=",
        "set.yaml": "datasets: !!set {coco}",
        "twice.yaml": "seed: 1\nseed: 2",
        "twice.json": '{"seed": 1, "seed": 2}',
        "list.yaml": "[1, 2]",
        "empty.yaml": "",
        "text.json": '"seed"',
        "binary.yaml": b"\xff\xfe\x00seed: 1",
        "broken.json": '{"seed": 1',
        "broken.yaml": "seed: [1",
        "unknown.yaml": "leraning_rate: 1",
        "dunder.json": '{"__class__": 1}',
        "objective.json": '{"loss_names": {"mlmm": 1}}',
        "text.yaml": "seed: one",
        "nested.json": '{"datasets": [["coco"]]}',
        "number_key.yaml": "1: 2",
        "none.txt": "seed: 1",
        "code.py": f"import os; os.system('{touch}')",
    }


@pytest.mark.parametrize("name", _hostile(Path("proof")))
def test_nothing_else_is_read(tmp_path, name):
    proof, path = tmp_path / "proof", tmp_path / name
    content = _hostile(proof)[name]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.perf_counter()
    for read in (load_config_file, lambda file: resolve(str(file))):
        with pytest.raises((UserError, RunError), match=name) as caught:
            read(path)
        assert len(str(caught.value)) < 3000
    assert time.perf_counter() - started < 20
    assert not proof.exists()


def test_what_is_wrong_is_told(tmp_path):
    path = tmp_path / "a.yaml"
    for content, message in (
        ("leraning_rate: 1", "Unknown config key 'leraning_rate'. Did you mean learning_rate"),
        ("datasets: &d [coco]\nsplits: *d", r"an alias \(\*\) in line 2: write its value"),
        ("seed: !!python/object/apply:os.system ['true']", "could not determine a constructor for the tag"),
        ("seed: 1\nseed: 2", "the key 'seed' stands there twice"),
        ("vit: 3", "vit=3 is not valid"),
        ("datasets: [[coco]]", "datasets holds list where a single value is expected"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=rf"{path} cannot be used: .*{message}"):
            load_config_file(path)
    with pytest.raises(UserError, match=r"a\.pickle is not read \(a pickle could run code\): expected \.json, \.yaml"):
        load_config_file(tmp_path / "a.pickle")


def test_the_command_line(tmp_path):
    """Files, and values that name objects, as a user gives them."""
    proof = tmp_path / "proof"
    for name, content in _hostile(proof).items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    value = {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [f"touch {proof}"]}]}
    for word in (*(str(tmp_path / name) for name in ("code.pickle", "reduce.json", "apply.yaml")), f"exp_name={value}"):
        done = _run("with", word, "per_gpu_batchsize=2")
        assert done.returncode != 0
        assert "Traceback" not in done.stderr, done.stderr
        assert not proof.exists()
    (tmp_path / "plain.yaml").write_text(YAML)
    done = _run("print_config", "with", str(tmp_path / "plain.yaml"))
    assert "per_gpu_batchsize = 8" in done.stdout
    assert "end_lr = 2.5e-06" in done.stdout


def _run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "run.py", *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("task_pretrain_emoji", "stand behind the word with: python run.py with task_pretrain_emoji"),
        ("task_pretrain_emoji seed=1", "python run.py with task_pretrain_emoji seed=1"),
        ("seed=1", "python run.py with seed=1"),
        ("predict image=a.jpg", "python run.py predict with image=a.jpg"),
        ("indx with seed=1", "indx is no command. Did you mean index? Expected python run.py [COMMAND] with"),
        ("with seed=one", "seed='one' is not valid: expected a whole number"),
        ("with loss_names=3", "loss_names=3 is not valid: expected weights by objective, as in loss_names.mlm=1"),
        ("with vit=3", "vit=3 is not valid: expected a text"),
        ("with exp_name=2024 per_gpu_batchsize=2", "expected a text; for the text 2024 write 'exp_name=\"2024\"'"),
    ],
)
def test_command_lines_that_cannot_be_used_tell_the_right_one(words, message):
    done = _run(*words.split())
    assert done.returncode == 1
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
