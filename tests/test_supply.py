"""What is installed and what is opened: pins, locks, lower bounds, and no foreign code out of a file."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.test_packaging import PROJECT, ROOT

CODE = [
    *(path for room in ("vlc", "write_arrow", "demo", "benchmarks") for path in sorted((ROOT / room).rglob("*.py"))),
    *(ROOT / name for name in ("run.py", "launch.py", "main_finetune.py")),
]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
DECLARED = [
    Requirement(line)
    for lines in (PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values())
    for line in lines
]


def requirements(path: Path) -> Iterator[Requirement]:
    """The requirements of a file, without their hashes."""
    for line in path.read_text().splitlines():
        line = re.split(r"\s#|\\$", f" {line}")[0].strip()
        if line and not line.startswith("-"):
            yield Requirement(line)


HARMFUL = {requirement.name: requirement.specifier for requirement in requirements(ROOT / "constraints.txt")}


def test_releases_with_malicious_code_are_known():
    assert not HARMFUL["pytorch-lightning"].contains("2.6.2")
    assert not HARMFUL["lightning"].contains("2.6.3")
    assert HARMFUL["pytorch-lightning"].contains("2.6.6")


@pytest.mark.parametrize(
    "path", [ROOT / "requirements.txt", ROOT / "requirements-dev.txt", *LOCKS], ids=lambda path: path.name
)
def test_no_pin_is_a_release_with_malicious_code(path):
    pins = list(requirements(path))
    assert pins
    for requirement in pins:
        (pin,) = requirement.specifier
        assert pin.operator == "==", f"{requirement} is no pin"
        assert HARMFUL.get(requirement.name, requirement.specifier).contains(pin.version), f"{requirement} is harmful"


def test_no_bound_admits_a_release_with_malicious_code():
    for requirement in DECLARED:
        harmful = [str(one.version) for one in HARMFUL.get(requirement.name, ())]
        assert not any(requirement.specifier.contains(version) for version in harmful), requirement


def test_every_requirement_has_a_lower_bound_that_the_pins_reach():
    pins = {pin.name: pin for path in ("requirements.txt", "requirements-dev.txt") for pin in requirements(ROOT / path)}
    for requirement in DECLARED:
        lowest = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==")]
        assert lowest, f"{requirement}: `make lowest` would install its first release"
        if requirement.name in pins:
            (pin,) = pins[requirement.name].specifier
            assert Version(pin.version) >= lowest[0]


class TestLocks:
    def test_each_pin_is_locked(self):
        locked = {str(requirement) for path in LOCKS for requirement in requirements(path)}
        versions = {(one.name, str(one.specifier)) for one in map(Requirement, locked)}
        for path in ("requirements.txt", "requirements-dev.txt"):
            for pin in requirements(ROOT / path):
                assert (pin.name, str(pin.specifier)) in versions, f"{pin} is not in locks/: make lock"

    def test_each_requirement_has_hashes(self):
        for path in LOCKS:
            blocks = re.split(r"\n(?=\S)", path.read_text().rstrip())
            assert all("--hash=sha256:" in block for block in blocks[1:]), path

    def test_no_requirement_is_locked_twice(self):
        """pip takes one line of each package: the markers of several have to exclude each other."""
        found = {}
        for path in LOCKS:
            for requirement in () if path.stem == "torch-cpu" else requirements(path):
                found.setdefault(requirement.name, []).append(requirement)
        environment = {
            "sys_platform": "linux",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
        }
        for minor in range(10, 14):
            version = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.2"} | environment
            for several in found.values():
                assert sum(one.marker is None or one.marker.evaluate(version) for one in several) <= 1, several

    def test_torch_is_locked_twice_for_two_kinds_of_machine(self):
        names = {path.stem: {requirement.name for requirement in requirements(path)} for path in LOCKS}
        of_nvidia = {name for name in names["torch"] if name.startswith(("nvidia-", "cuda-", "triton"))}
        assert names["torch-cpu"] == names["torch"] - of_nvidia == {"torch"}
        assert not names["base"] & names["torch"]


def _calls(path: Path) -> Iterator[tuple[str, set[str], ast.Call]]:
    """The name of each function that a file calls, and the keywords that it is given with the value True."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            true = {word.arg for word in node.keywords if getattr(word.value, "value", None) is True}
            yield ast.unparse(node.func), true, node


def test_no_file_is_opened_in_a_way_that_runs_code():
    """load_from_checkpoint imports what a checkpoint names, in spite of weights_only (Lightning's issue 21822)."""
    unpickling = re.compile(
        r"(pickle|cPickle|dill|joblib|jsonpickle|shelve|marshal|cloudpickle)\.(load|loads|open|decode)"
    )
    calls = [(path, *call) for path in CODE for call in _calls(path)]
    assert len(calls) > 5000
    for path, name, true, call in calls:
        where = f"{path.relative_to(ROOT)}, line {call.lineno}: {name}"
        assert not name.endswith("load_from_checkpoint"), where
        assert not unpickling.fullmatch(name), where
        assert name not in ("eval", "exec", "yaml.unsafe_load", "yaml.full_load", "pickle.Unpickler"), where
        if name == "torch.load" or "ckpt_path" in {word.arg for word in call.keywords}:
            assert "weights_only" in true, f"{where} needs weights_only=True"
        assert not {"allow_pickle", "trust_remote_code"} & true, where
