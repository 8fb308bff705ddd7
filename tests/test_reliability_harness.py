"""The harness of tests/reliability: a few tries of each part, and that it would see what it looks for."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.reliability import damage, hostile, isolated, kills
from tests.reliability.outcomes import OUTCOMES, Try, markdown, rows, table
from vlc.common.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def server() -> None:
    isolated.start_server()


def _refuse(path: str) -> None:
    raise UserError(f"{path} is damaged")


def _raise() -> None:
    raise KeyError("from a library")


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _take_memory() -> int:
    return len(b"x" * (isolated.MEMORY + 2**26))


def _touch() -> None:
    os.system('touch "$RELIABILITY_CANARY"')


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (str.upper, ("a",), "same"),
        (str.upper, ("b",), "silent"),
        (_refuse, ("a.arrow",), "clear"),
        (_refuse, ("something",), "raw"),  # which does not name the file
        (_raise, (), "raw"),
        (_crash, (), "crash"),
        (_take_memory, (), "crash"),
        (_touch, (), "code run"),
        (time.sleep, (60,), "hang"),
    ],
)
def test_every_outcome_is_told_apart(tmp_path, function, arguments, expected):
    ended = isolated.call(function, *arguments, folder=tmp_path, seconds=1 if expected == "hang" else 30)
    assert damage.judged(ended, "A", ("a.arrow",))[0] == expected


def test_the_network_is_out_of_reach(tmp_path):
    import socket

    ended = isolated.call(socket.create_connection, ("example.org", 80), folder=tmp_path)
    assert ended.fault == "code run"


@pytest.mark.parametrize("kind", damage.DAMAGE)
def test_damage_changes_the_file(kind):
    data = random.Random(1).randbytes(10_240)
    assert damage.DAMAGE[kind](data, random.Random(0)) != data


def test_damaged_files(tmp_path):
    kinds = tuple(kind for kind in damage.KINDS if kind.name in ("exported safetensors", "captions.csv, converted"))
    tries = list(damage.tries(tmp_path, 0, 0.05, kinds))
    assert len(tries) == 8
    assert {one.kind for one in tries} == {kind.name for kind in kinds}
    assert {one.outcome for one in tries} & {"clear", "silent"}


def test_kills(tmp_path):
    tries = list(kills.tries(tmp_path, 0, 0.05))
    kinds = {one.kind for one in tries}
    assert {"run.py, by steps", "writers, the same command again", "index, made anew"} <= kinds
    assert not [one for one in tries if one.kind.startswith("writers, the same") and one.is_fault]


def test_hostile_inputs(tmp_path):
    names = ("code in a torch file, vlc.checkpoint", "JSON that is a text", "a folder as image")
    tries = list(hostile.tries(tmp_path, 0, cases=[case for case in hostile.CASES if case.name in names]))
    assert [one.is_fault for one in tries] == [False] * 3
    assert [one.outcome for one in tries] == ["same", "clear", "clear"], (
        "what a file would run is left out, its weights are read"
    )


def test_there_are_as_many_tries_as_promised():
    shares = sum(max(1, round(damage._TRIES * kind.share)) for kind in damage.KINDS)
    assert shares >= 1500
    assert len(hostile.CASES) >= 40
    assert len({(case.kind, case.name) for case in hostile.CASES}) == len(hostile.CASES)


def test_the_table_counts_and_tells_what_a_fault_is():
    tries = [Try("damage", "Arrow", "1", "clear"), Try("damage", "Arrow", "2", "silent"),
             Try("damage", "CSV", "3", "silent", checked=False)]  # fmt: skip
    assert [(row.kind, row.num_tries, row.counts["silent"]) for row in rows(tries)] == [("Arrow", 2, 1), ("CSV", 1, 1)]
    assert [one.is_fault for one in tries] == [False, True, False]
    assert all(
        Try("damage", "Arrow", "", outcome).is_fault == (outcome not in ("clear", "same")) for outcome in OUTCOMES
    )
    assert "| damage | CSV (without checksums) | 1 | - | - | 1 |" in markdown(tries)
    assert table(tries).row_count == 4


def test_the_tests_of_the_folder_are_not_collected_by_themselves(pytestconfig):
    assert "reliability" in pytestconfig.getini("norecursedirs")
    assert (Path(__file__).parent / "reliability").is_dir()
