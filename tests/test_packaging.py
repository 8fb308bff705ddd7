"""What pyproject.toml says of the package, for its use from other projects."""

from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from setuptools.config.pyprojecttoml import read_configuration

import vlc

ROOT = Path(__file__).parents[1]
PROJECT = read_configuration(ROOT / "pyproject.toml")


def test_the_version_is_that_of_the_package():
    assert PROJECT["project"]["version"] == vlc.__version__


def test_the_pinned_environment_fulfils_what_the_package_requires():
    required = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    assert len(required) > 15
    for requirement in required:
        assert requirement.specifier.contains(version(requirement.name), prereleases=True), requirement.name
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    assert {Requirement(line).name for line in lines if line} == {requirement.name for requirement in required}


def test_every_package_with_code_is_installed():
    found = set(PROJECT["tool"]["setuptools"]["packages"])
    for package in ("vlc", "write_arrow", "demo"):
        folders = {path.parent.relative_to(ROOT) for path in (ROOT / package).rglob("*.py")}
        assert {".".join(folder.parts) for folder in folders} <= found
    for module in PROJECT["tool"]["setuptools"]["py-modules"]:
        assert (ROOT / f"{module}.py").is_file()
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items():
        assert all(any((ROOT / package).glob(pattern)) for pattern in patterns)
