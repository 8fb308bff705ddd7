"""Python, the packages and their versions."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from vlc.workflows.doctor import torch_process
from vlc.workflows.doctor.finding import Asked, Finding, note, ok, problem

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]  # of the repository; an installed package has no requirements.txt there
_INSTALL = "python -m pip install -r requirements.txt"


def probe(asked: Asked) -> Iterator[Finding]:
    """Compare the installed versions with what pyproject.toml requires and requirements.txt pins, and list the extras."""
    supported = (3, 10) <= sys.version_info < (3, 14)
    text = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    yield (
        ok(text) if supported else problem(f"{text}: 3.10 to 3.13 are supported", "make clean setup PYTHON=python3.11")
    )
    declared = _declared()
    yield from _required(declared.pop("", []))
    yield from _differing_from_pins()
    yield from _harmful()
    for name, requirements in declared.items():
        yield _extra(name, requirements)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _declared() -> "dict[str, list[Requirement]]":
    """The requirements of pyproject.toml by extra; "" has those of the package itself."""
    from packaging.requirements import Requirement

    if (ROOT / "pyproject.toml").is_file() and sys.version_info >= (3, 11):
        import tomllib

        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines = {"": project["dependencies"], **project["optional-dependencies"]}
        return {name: [Requirement(line) for line in some] for name, some in lines.items()}
    found: dict[str, list[Requirement]] = {}
    for requirement in map(Requirement, (_installed("vlc") and requires("vlc")) or ()):
        _, _, extra = str(requirement.marker or "").partition('extra == "')
        found.setdefault(extra.partition('"')[0], []).append(requirement)
    return found


def _lines(name: str) -> "list[Requirement]":
    """The requirements that hold here in a file of the repository; none where the file is absent."""
    from packaging.requirements import Requirement

    path = ROOT / name
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = [Requirement(line) for line in (line.partition("#")[0].strip() for line in lines) if line]
    return [requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate()]


def _required(requirements: "list[Requirement]") -> Iterator[Finding]:
    fitting = 0
    for requirement in requirements:
        installed = _installed(requirement.name)
        if installed is None:
            yield problem(f"{requirement.name} is not installed", _INSTALL)
        elif not requirement.specifier.contains(installed, prereleases=True):
            yield problem(f"{requirement.name} {installed} is installed; vlc needs {requirement.specifier}", _INSTALL)
        else:
            fitting += 1
    if fitting:
        yield ok(f"{fitting} of {len(requirements)} required packages are installed in a version that fits")


def _differing_from_pins() -> Iterator[Finding]:
    for requirement in _lines("requirements.txt"):
        installed = _installed(requirement.name)
        if installed and not requirement.specifier.contains(installed, prereleases=True):
            pinned = str(requirement.specifier).removeprefix("==")
            yield note(f"{requirement.name} {installed} is installed; the tests are run with {pinned}", _INSTALL)


def _harmful() -> Iterator[Finding]:
    for requirement in _lines("constraints.txt"):
        installed = _installed(requirement.name)
        if installed and not requirement.specifier.contains(installed, prereleases=True):
            yield problem(
                f"{requirement.name} {installed} is a release that carried malicious code (constraints.txt says more)",
                "take this machine off the network, replace every key and password it had, and install it anew",
            )


def _extra(name: str, requirements: "list[Requirement]") -> Finding:
    installed = {requirement.name: _installed(requirement.name) for requirement in requirements}
    unfit = [
        requirement.name
        if installed[requirement.name] is None
        else f"{requirement} (here: {installed[requirement.name]})"
        for requirement in requirements
        if not requirement.specifier.contains(installed[requirement.name] or "0", prereleases=True)
        or installed[requirement.name] is None
    ]
    if unfit:
        return note(f"extra {name} is not complete: {', '.join(unfit)}", f'python -m pip install "vlc[{name}]"')
    return ok(f"extra {name}: {', '.join(f'{package} {number}' for package, number in installed.items())}")


def probe_training(asked: Asked) -> Iterator[Finding]:
    """Whether everything that training imports can be imported."""
    found = torch_process.answer("training")
    if found.failure:
        yield problem(f"what training needs cannot be imported: {found.failure}", _INSTALL)
        return
    yield ok("everything that training needs can be imported")
    computed = "bfloat16 for encoders of base size and larger" if found.facts["cpu_bfloat16"] else "float32"
    yield ok(f"precision=16 is {computed} on this processor")
