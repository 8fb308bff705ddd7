"""Python, the packages and their versions."""

import platform
import shlex
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
    versions = {requirement.name: _installed(requirement.name) for requirement in requirements}
    if missing := [name for name, installed in versions.items() if installed is None]:
        yield problem(f"not installed: {', '.join(missing)}", _INSTALL)
    present = [requirement for requirement in requirements if versions[requirement.name]]
    fitting = [one for one in present if _fits(one, versions[one.name])]
    for requirement in present:
        if requirement not in fitting:
            installed = versions[requirement.name]
            yield problem(f"{requirement.name} {installed} is installed; vlc needs {requirement.specifier}", _INSTALL)
    yield ok(f"{len(fitting)} of {len(requirements)} required packages are installed in a version that fits")


def _fits(requirement: "Requirement", installed: str | None) -> bool:
    return installed is not None and requirement.specifier.contains(installed, prereleases=True)


def _differing_from_pins() -> Iterator[Finding]:
    for requirement in _lines("requirements.txt"):
        installed = _installed(requirement.name)
        if installed and not _fits(requirement, installed):
            pinned = str(requirement.specifier).removeprefix("==")
            yield note(f"{requirement.name} {installed} is installed; the tests are run with {pinned}", _INSTALL)


def _harmful() -> Iterator[Finding]:
    for requirement in _lines("constraints.txt"):
        installed = _installed(requirement.name)
        if installed and not _fits(requirement, installed):
            yield problem(
                f"{requirement.name} {installed} is a release that carried malicious code (constraints.txt says more)",
                "take this machine off the network, replace every key and password it had, and install it anew",
            )


def _extra(name: str, requirements: "list[Requirement]") -> Finding:
    """What an extra brings. The cure names the packages: pip would look for vlc[search] at PyPI, where vlc is not."""
    versions = {requirement.name: _installed(requirement.name) for requirement in requirements}
    unfit = [requirement for requirement in requirements if not _fits(requirement, versions[requirement.name])]
    if not unfit:
        return ok(f"extra {name}: {', '.join(f'{package} {installed}' for package, installed in versions.items())}")
    here = [f"{one.name} {versions[one.name] or 'is absent'}" for one in unfit]
    wanted = shlex.join(map(str, unfit))
    return note(f"extra {name} is not complete: {', '.join(here)}", f"python -m pip install {wanted}")


def probe_training(asked: Asked) -> Iterator[Finding]:
    """Whether everything that training imports can be imported."""
    found = torch_process.answer("training")
    if found.failure:
        yield problem(f"what training needs cannot be imported: {found.failure}", _INSTALL)
        return
    yield ok("everything that training needs can be imported")
    computed = "bfloat16 for encoders of base size and larger" if found.facts["cpu_bfloat16"] else "float32"
    yield ok(f"precision=16 is {computed} on this processor")
