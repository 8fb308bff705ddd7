"""Elements come one by one, however the document is cut into chunks."""

import io
import json

import pytest

from vlc.common.errors import UserError
from write_arrow.machine import json_stream
from write_arrow.machine.json_stream import elements, items, lines

VALUES = [1, -2.5e3, 'a, ]} \\ " é 日本', {"a": [1, {"b": None}]}, [], {}, True, 123456789, "😀"]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 1])
def test_elements_of_a_list(chunk, ascii_only, indent, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", chunk)
    text = json.dumps(VALUES, ensure_ascii=ascii_only, indent=indent)
    assert list(elements(io.BytesIO(text.encode()), "x.json")) == VALUES
    document = json.dumps({"info": {"a": [1]}, "entries": VALUES, "more": 1}, ensure_ascii=ascii_only, indent=indent)
    assert list(elements(io.BytesIO(document.encode("utf-8-sig")), "x.json", "entries")) == VALUES
    assert list(elements(io.BytesIO(b" [ ] "), "x.json")) == []


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("indent", [None, 1])
def test_items_of_an_object(chunk, indent, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", chunk)
    entries = {f'"{number}: é' * number: value for number, value in enumerate(VALUES)}
    assert list(items(io.BytesIO(json.dumps(entries, indent=indent).encode()), "x.json")) == list(entries.items())
    assert list(items(io.BytesIO(b" { } "), "x.json")) == []
    assert list(items(io.BytesIO(b'{"a": 1, "a": 2}'), "x.json")) == [("a", 1), ("a", 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x\.json is cut short"),
        ("[]", "should be a JSON object"),
        ('{"a": 1', "cut short"),
        ('{"a" 1}', "no ':' after 'a'"),
        ('{"a": 1 "b"}', """'"' where ',' or '}' should be"""),
        ('{"a": 1,}', "cut short or not JSON"),
    ],
)
def test_what_is_wrong_in_an_object_is_told(text, message):
    with pytest.raises(UserError, match=message):
        list(items(io.BytesIO(text.encode()), "x.json"))


def test_memory_holds_a_window_only(monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 1000)
    file = io.BytesIO(json.dumps(["x" * 100] * 1000).encode())
    stream = elements(file, "x.json")
    next(stream)
    assert file.tell() <= 2000


def test_lists_before_the_one_that_is_wanted_are_not_held(monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK_BYTES", 1000)
    longest = []
    grow = json_stream._Window._grow
    monkeypatch.setattr(json_stream._Window, "_grow", lambda window: (grow(window), longest.append(len(window.text))))
    document = {"images": [{"name": "x" * 100}] * 1000, "none": [], "entries": [1, 2]}
    assert list(elements(io.BytesIO(json.dumps(document).encode()), "x.json", "entries")) == [1, 2]
    assert max(longest) <= 2000


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("", None, "x.json is cut short"),
        ("[1, 2", None, "cut short"),
        ('["a', None, "cut short or not JSON"),
        ("[1 2]", None, "'2' where ',' or ']' should be"),
        ("{}", None, "should be a JSON list"),
        ('{"a": []}', "b", "should be a JSON object with a list under 'b'"),
        ("[]", "b", "should be a JSON object with a list under 'b'"),
        ('{"b": 3}', "b", "'b' should be a list"),
        ('{"a" 1}', "b", "no ':' after 'a'"),
        ('{"a": 1', "b", "cut short"),
    ],
)
def test_what_is_wrong_is_told(text, key, message):
    with pytest.raises(UserError, match=message):
        list(elements(io.BytesIO(text.encode()), "x.json", key))


def test_not_utf8_is_told():
    with pytest.raises(UserError, match="x.json is not UTF-8"):
        list(elements(io.BytesIO(b'["\xff"]'), "x.json"))


def test_lines():
    assert list(lines(io.BytesIO(b'{"a": 1}\n\n[2]\n'), "x.jsonl")) == [{"a": 1}, [2]]
    with pytest.raises(UserError, match=r"x\.jsonl, line 2: not JSON"):
        list(lines(io.BytesIO(b"1\n{\n"), "x.jsonl"))
