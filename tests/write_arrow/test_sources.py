"""The table of data sets, and the loop that many of them share."""

import importlib
import pkgutil
from argparse import Namespace

import pytest

from vlc.common.errors import UserError
from write_arrow import sources
from write_arrow.machine.conversion import Conversion, value_columns
from write_arrow.machine.storage import Folder
from write_arrow.sources import SOURCES, nlvr2, vqav2


def test_every_file_that_states_sources_is_in_the_table():
    stated = set()
    for module in pkgutil.iter_modules(sources.__path__):
        stated |= getattr(importlib.import_module(f"{sources.__name__}.{module.name}"), "SOURCES", {}).keys()
    assert stated == SOURCES.keys()


def test_descriptions_are_those_of_the_files():
    assert SOURCES["nlvr2"].description == nlvr2.__doc__
    assert SOURCES["sbu"].description == SOURCES["gcc"].description == sources.pairs.__doc__


@pytest.fixture
def conversion(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").write_bytes(b"image")
    return Conversion(Folder(tmp_path), Folder(tmp_path / "out"), Namespace())


def _grouped(conversion, **options):
    files = conversion.files("")
    annotations = conversion.groups(
        [
            ("b", {"questions": "one", "number": 1}),
            ("none", {"questions": "lost", "number": 2}),
            ("a", None),
            ("b", {"questions": "two", "number": 3}),
            ("c", None),
            ("c", {"questions": "three", "number": 4}),
        ]
    )
    plans = conversion.grouped_rows(
        annotations,
        ("image_id", "questions"),
        lambda name, _: files.lookup(f"{name}.jpg"),
        lambda name: {"image_id": name},
        **options,
    )
    return plans, annotations


def test_grouped_rows_are_in_the_order_of_their_keys_and_of_their_columns(conversion):
    plans, annotations = _grouped(conversion)
    rows = list(plans.read(0, len(plans)))
    assert [plan.images[0].path for plan in rows] == ["b.jpg", "c.jpg"]  # no usable annotation is about a.jpg
    assert [list(plan.values.items()) for plan in rows] == [
        [("image_id", "b"), ("questions", ["one", "two"])],
        [("image_id", "c"), ("questions", ["three"])],
    ]
    assert annotations.num_values == 6
    assert list(plans.rejected()) == [("none.jpg", "no such file")]


def test_missing_images_may_be_counted_instead_of_listed(conversion):
    plans, _ = _grouped(conversion, list_missing=False)
    assert (plans.num_planned, plans.num_rejected, plans.num_missing) == (2, 0, 1)


def test_a_column_that_an_annotation_lacks_is_no_silent_null(conversion):
    groups = conversion.groups([("a", {"questions": "one"})])
    files = conversion.files("")
    with pytest.raises(KeyError, match="answers"):
        conversion.grouped_rows(
            groups, ("questions", "answers"), lambda name, _: files.lookup(f"{name}.jpg"), lambda name: {}
        )


def test_value_columns_are_those_without_images():
    assert value_columns(nlvr2.SCHEMA) == ["questions", "answers", "identifier"]
    assert "image" not in value_columns(vqav2.SCHEMA)


def test_a_data_set_without_an_image_is_told(conversion):
    groups = conversion.groups([("x", {"questions": "one"})])
    plans = conversion.grouped_rows(groups, ("questions",), lambda name, _: {f"{name}.jpg": None}, lambda name: {})
    with pytest.raises(
        UserError, match=r"t: no image with annotations .* 1 were left out, the first is x\.jpg: no such"
    ):
        conversion.table("t", nlvr2.SCHEMA, plans)
