"""The configurations of all named configs are those of print_config.json; configs.py tells how it was made."""

import json
from typing import Any

import pytest

from tests.compatibility.configs import PATH, plain, resolve

STORED = json.loads(PATH.read_text(encoding="utf-8"))
ALONE = {case["named"][0]: case["differing"] for case in STORED["cases"] if case["base"] is None}


def _label(case: dict[str, Any]) -> str:
    return " ".join([*case["named"], *case["updates"]])


def _assert_held(found: dict[str, Any], stored: dict[str, Any], where: str) -> None:
    """Every stored key is there with the value it had, of the same type. Keys may have been added."""
    lost = stored.keys() - found.keys()
    assert not lost, f"{where}: {', '.join(sorted(lost))} vanished"
    for key, value in stored.items():
        if isinstance(value, dict):
            _assert_held(found[key], value, f"{where}: {key}")
        else:
            assert plain(found[key]) == plain(value), f"{where}: {key}"


def test_defaults():
    _assert_held(resolve(), STORED["defaults"], "defaults")


@pytest.mark.parametrize("case", STORED["cases"], ids=_label)
def test_named_configs(case):
    expected = STORED["defaults"] | ALONE.get(case["base"], {}) | case["differing"]
    _assert_held(resolve(*case["named"], **case["updates"]), expected, _label(case))
