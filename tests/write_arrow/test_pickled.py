"""Pickled lists: plain values are read one by one, and nothing that a pickle names is ever run."""

import io
import os
import pickle
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlc.common.errors import UserError
from write_arrow.machine.pickled import elements

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def _read(content: bytes) -> list:
    return list(elements(io.BytesIO(content), "refs.p"))


@given(st.lists(PLAIN), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_elements_are_those_of_the_pickle(values, protocol):
    assert _read(pickle.dumps(values, protocol)) == values


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_values_that_stand_twice(protocol):
    shared = {"tokens": ["a", "b"]}
    values = [shared, {"other": shared}, shared["tokens"], [shared, shared]] * 3
    assert _read(pickle.dumps(values, protocol)) == values


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"(lp0\n(dp1\nS'raw'\np2\nS'na\\xefve'\np3\nsa.", [{"raw": "naïve"}]),  # Python 2, protocol 0
        (b"\x80\x02]q\x00}q\x01U\x03rawq\x02U\x05na\xefveq\x03sa.", [{"raw": "naïve"}]),  # protocol 2
        (b"(I1\nI2\nl.", [1, 2]),  # a list that is made at once
        (b"(lp0\nL5L\na.", [5]),
    ],
)
def test_pickles_of_python_2(content, expected):
    assert _read(content) == expected


class _Runs:
    def __reduce__(self):
        return os.system, ("false",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [_Runs(), (1, 2), {1}, b"x", 1j, range(3)])
def test_other_values_are_refused_before_anything_is_made(value, protocol, monkeypatch):
    content = pickle.dumps([{"raw": "a"}, value], protocol)
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("code of the pickle has run"))
    reader = elements(io.BytesIO(content), "refs.p")
    with pytest.raises(UserError, match=r"refs\.p holds more than plain values .* can run code, so it is not read"):
        next(reader)


def test_damaged_pickles_are_told():
    content = pickle.dumps([{"raw": "some text", "sent_id": 70000}] * 2, 2)
    for length in range(len(content)):
        with pytest.raises(UserError, match=r"refs\.p is cut short or no pickle of a list"):
            _read(content[:length])
    for other in ({"a": 1}, 3, "text"):
        with pytest.raises(UserError, match="no pickle of a list"):
            _read(pickle.dumps(other))
    for wrong in (b"]a.", b"](.", b"]]]s.", b"h\x05.", b"N.", b"]0.", b"}]K\x01s."):
        with pytest.raises(UserError, match=r"refs\.p"):
            _read(wrong)


def test_values_that_hold_themselves_or_too_many_are_refused():
    itself: list = []
    itself.append(itself)
    many: list = []
    for _ in range(40):
        many = [many, many]
    for value in (itself, many):
        with pytest.raises(UserError, match="an element holds itself, or more than 100,000 values"):
            _read(pickle.dumps([value]))
    with pytest.raises(UserError, match="bytes|exceeds|cannot fit|expected"):
        _read(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x0fabc.")  # a text that declares to be longer than any file


def test_memory_does_not_grow_with_the_list():
    def peak(count: int) -> int:
        file = io.BytesIO(
            pickle.dumps([{"raw": f"text {number}", "tokens": ["a", "b"] * 5} for number in range(count)])
        )
        tracemalloc.start()
        assert sum(1 for _ in elements(file, "refs.p")) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(20_000) < 2 * peak(4_000)
