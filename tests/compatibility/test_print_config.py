"""The configurations of all named configs are those of print_config.json; configs.py tells how it was made."""

import json
from typing import Any

import pytest

from tests.compatibility.configs import PATH, plain, resolve
from vlc.configuration.config import RunError, resolve_use

STORED = json.loads(PATH.read_text(encoding="utf-8"))
ALONE = {case["named"][0]: case["differing"] for case in STORED["cases"] if case["base"] is None}


# Keys that runs which train had then, and which only the commands have now that use a checkpoint.
OF_COMMANDS = set("image image2 text picture index image_folder query num_results out".split())


def _label(case: dict[str, Any]) -> str:
    return " ".join([*case["named"], *case["updates"]])


def _assert_held(found: dict[str, Any], stored: dict[str, Any], where: str) -> None:
    """Every stored key is there with the value it had, of the same type. Keys may have been added."""
    stored = {key: value for key, value in stored.items() if key not in OF_COMMANDS}
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


def test_the_commands_that_use_a_checkpoint_have_their_keys():
    found, _ = resolve_use("task_finetune_vqa_mae_randaug", image="a.png", **{"loss_names.itm": 1})
    assert {key: found[key] for key in OF_COMMANDS} == {key: STORED["defaults"][key] for key in OF_COMMANDS} | {
        "image": "a.png"
    }
    assert not OF_COMMANDS & resolve().keys()
    for key in OF_COMMANDS:
        with pytest.raises(
            RunError, match=f"Unknown config key '{key}': only the commands predict, index, search, features, hard_pool"
        ):
            resolve(**{key: "a"})
