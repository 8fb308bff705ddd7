"""Values of annotation columns: known spellings are understood, everything else is refused with value and place."""

import json
import re
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

from vlc.common.errors import UserError
from vlc.data import checks
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.checks import check_annotations, check_ids, labelled_answers
from vlc.data.ipc import in_plain_layout
from vlc.data.kinds import BOX_IDS, BOXES, NUMBERS, TRUTHS, one_of, truths
from vlc.data.parts import Field
from vlc.data.sample import Preparation
from vlc.data.samples import Samples
from vlc.data.spec import Column, DatasetSpec
from vlc.data.values import value_problems

NLVR2, VQA = CATALOG["nlvr2"], CATALOG["vqa"]


def _nlvr2(answers: pa.Array, **columns) -> pa.RecordBatch:
    """Rows of two statements."""
    texts = [["a", "b"]] * len(answers)
    names = [[f"dev-{row}-0-{text}" for text in range(2)] for row in range(len(answers))]
    return pa.record_batch({"questions": texts, "identifiers": names, "identifier": ["x"] * len(answers)} | {
        "answers": answers} | columns)  # fmt: skip


def _vqa(**columns) -> pa.RecordBatch:
    """Two rows of two questions."""
    good = {
        "questions": [["a", "b"], ["c", "d"]],
        "question_id": [[1, 2], [3, 4]],
        "answers": [[["yes"], ["no", "2"]], [[], ["2"]]],
        "answer_labels": [[[0], [1, 2]], [[], [2]]],
        "answer_scores": [[[1.0], [0.3, 0.6]], [[], [1.0]]],
    }
    return pa.record_batch(good | columns)


def _problems(batch: pa.RecordBatch, spec=VQA, **options) -> list[tuple[int, str]]:
    return value_problems(batch, spec, spec.fields, **options)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["True", "False", "False", "True"], pa.string()),
        (["true", "FALSE", "0", "1"], pa.large_string()),
        (["true", "FALSE", "0", "1"], pa.string_view()),
        (["true", "false", "false", "true"], pa.dictionary(pa.int8(), pa.string())),
        ([True, False, False, True], pa.bool_()),
        ([1, 0, 0, 1], pa.int64()),
        ([1, 0, 0, 1], pa.uint8()),
        ([1.0, 0.0, 0.0, 1.0], pa.float64()),
        ([1.0, 0.0, 0.0, 1.0], pa.float16()),
        ([Decimal(1), Decimal(0), Decimal(0), Decimal(1)], pa.decimal128(3, 1)),
    ],
)
def test_spellings_of_truth(values, kind):
    answers = pa.array([values[:2], values[2:]], pa.list_(kind))
    assert _problems(_nlvr2(answers), NLVR2) == []
    assert truths([cell for row in answers.to_pylist() for cell in row]).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("value", ["yes", " true", "", "t", 2, -1, 0.5, float("nan"), b"true", Decimal("0.1")])
def test_other_spellings_of_truth_are_refused(value):
    ((row, told), _) = _problems(_nlvr2(pa.array([[value, value]])), NLVR2)
    assert row == 0
    assert told.startswith(f"answers holds {value!r}, expected true or false (")


@pytest.mark.parametrize(
    ("columns", "row", "problem"),
    [
        ({"answer_labels": [[0, 1], [0, 2]]}, 0, "answer_labels holds 0, expected a list of different whole numbers"),
        ({"answer_labels": [[["0"], ["1", "2"]], [[], ["2"]]]}, 0, "answer_labels holds '0', expected different whole"),
        ({"answer_labels": [[[0], [1, 2]], [[], [-1]]]}, 1, "answer_labels holds -1, expected different whole numbers"),
        ({"answer_labels": [[[0], [1, 2]], [[], [2**24]]]}, 1, "answer_labels holds 16777216, expected"),
        ({"answer_labels": [[[0], [1, 1.5]], [[], [2]]]}, 0, "answer_labels holds 1.5, expected"),
        ({"answer_labels": [[[0], [1, None]], [[], [2]]]}, 0, "answer_labels holds null, expected different"),
        ({"answer_labels": [[[0], [1, 1]], [[], [2]]]}, 0, "answer_labels holds 1 twice for one text"),
        ({"answer_labels": [[[True], [True, False]], [[], [True]]]}, 0, "answer_labels holds True, expected"),
        ({"answer_labels": [[[0], [1, 2]], [None, [2]]]}, 1, "answer_labels holds null, expected a list"),
        ({"answer_labels": [[[0], [1, 2]], [[]]]}, 1, "1 answer_labels for 2 questions"),
        ({"answer_labels": [[[0], [1, 2]], None]}, 1, "0 answer_labels for 2 questions"),
        ({"answer_labels": [0, 1]}, 0, "answer_labels is int64, expected a list with an entry for each text"),
        ({"answer_labels": pa.nulls(2)}, 0, "0 answer_labels for 2 questions"),
        ({"answer_scores": [[[1.0], [0.3]], [[], [1.0]]]}, 0, "1 answer_scores and 2 answer_labels for one text"),
        ({"answer_scores": [[[1.0], [0.3, 0.6]], [[], [1.5]]]}, 1, "answer_scores holds 1.5, expected numbers from 0"),
        ({"answer_scores": [[[1.0], [0.3, float("nan")]], [[], [1.0]]]}, 0, "answer_scores holds nan, expected"),
        ({"answer_scores": [[["1"], ["0", "1"]], [[], ["1"]]]}, 0, "answer_scores holds '1', expected numbers"),
        ({"answers": [[[1], [0, 2]], [[], [2]]]}, 0, "answers holds 1, expected strings"),
        ({"answers": [[["yes"], ["no", None]], [[], ["2"]]]}, 0, "answers holds null, expected strings"),
        ({"answers": [["yes", "no"], ["no", "2"]]}, 0, "answers holds 'yes', expected a list of strings"),
        ({"question_id": [[1, 2], [3, None]]}, 1, "question_id holds null, expected an integer, or a string"),
        ({"question_id": [[1.0, 2.0], [3.0, 4.0]]}, 0, "question_id holds 1.0, expected an integer, or a string"),
        ({"question_id": [["1", ""], ["3", "4"]]}, 0, "question_id holds '', expected an integer, or a string"),
        ({"question_id": [1, 2]}, 0, "question_id is int64, expected a list with an entry for each text"),
        ({"questions": [["a", None], ["c", "d"]]}, 0, "questions holds null, expected a string"),
        ({"question_types": [[1, 2], [3, 4]]}, 0, "question_types holds 1, expected a string"),
    ],
)
def test_values_that_are_not_understood(columns, row, problem):
    found = _problems(_vqa(**columns))
    assert any(where == row and told.startswith(problem) for where, told in found), found


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"question_id": [["01827492", "1827492"], ["q1", "q2"]]},
        {"question_id": pa.array([[1, 2], [3, 2**64 - 1]], pa.list_(pa.uint64()))},
        {"question_id": pa.array([[1, 2], [3, 4]], pa.large_list(pa.int32()))},
        {"question_types": [["what", None], [None, "is"]]},
        {"answer_labels": pa.array([[[0], [1, 2]], [[], [2]]], pa.list_(pa.list_(pa.uint16())))},
        {"answer_labels": [[[0.0], [1.0, 2.0]], [[], [2.0]]]},
        {"answer_scores": [[[1], [0, 1]], [[], [1]]]},
        {"answer_scores": pa.array([[[1], [0.5, 1]], [[], [1]]], pa.list_(pa.list_(pa.float32())))},
    ],
)
def test_values_that_are_understood(columns):
    assert _problems(_vqa(**columns)) == []


def test_withheld_columns_are_passed_over_where_they_may_be():
    empty = {name: [[], []] for name in ("answers", "answer_labels", "answer_scores")}
    assert _problems(_vqa(**empty), withheld=True) == []
    assert (0, "0 answer_labels for 2 questions") in _problems(_vqa(**empty))


def test_rows_of_a_slice_are_told_by_their_place_in_it():
    batch = _vqa(answer_labels=[[[0], [1, 2]], [[], [-1]]])
    assert [row for row, _ in _problems(batch.slice(1))] == [0]
    assert _problems(batch.slice(0, 1)) == []


def _opened(path, batch: pa.RecordBatch, spec=VQA, *, fields=None, rows_at_once: int = 1) -> ArrowSplit:
    columns = {name: batch.column(name) for name in batch.schema.names}
    table = pa.table(columns | {image: [b"x"] * batch.num_rows for image in spec.images})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_at_once)
    return ArrowSplit([path], spec, spec.writer, spec.columns(frozenset(fields or spec.fields)))


@pytest.mark.parametrize(("rows_at_once", "joined"), [(2, 2**20), (1, 2**20), (1, 0)])  # batches are checked as one
def test_an_opened_split_names_file_row_value_and_command(tmp_path, monkeypatch, rows_at_once, joined):
    monkeypatch.setattr(checks, "_JOINED_BYTES", joined)
    path = tmp_path / "t.arrow"
    source = _opened(path, _vqa(answer_scores=[[[1.0], [0.3, 0.6]], [[], [-0.5]]]), rows_at_once=rows_at_once)
    expected = (
        f"Row 1 of {path}: answer_scores holds -0.5, expected numbers from 0 to 1. Mend the file, or write it again"
    )
    with pytest.raises(UserError, match=re.escape(expected) + r" with: python -m write_arrow vqav2 --out"):
        check_annotations(source, VQA.fields, training=True)
    check_annotations(source, {"question_id"}, training=True)  # what nobody reads is not looked at


def test_damage_in_an_optional_column_is_told(tmp_path):
    path = tmp_path / "t.arrow"
    types = pa.array([["what", "where"], ["is", "Zählt"]])
    source = _opened(path, _vqa(question_types=types))
    check_annotations(source, {"question_type"}, training=True)
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xff\xff"))
    source = ArrowSplit([path], VQA, "vqa", source.columns)
    with pytest.raises(UserError, match=r"t\.arrow is damaged"):
        check_annotations(source, {"question_type"}, training=True)


def test_texts_that_are_null_are_left_out_of_training_and_refused_in_evaluation(tmp_path):
    spec = CATALOG["coco"]
    source = _opened(tmp_path / "t.arrow", pa.record_batch({"caption": [["a"], ["b", None], None, []]}), spec)
    with pytest.warns(UserWarning, match=r"Left out 1 texts of .*t\.arrow: column caption holds null there"):
        check_annotations(source, (), training=True)
    with pytest.raises(UserError, match=r"Row 1 of .*t\.arrow: caption holds null, expected a string"):
        check_annotations(source, (), training=False)


def test_questions_that_are_null_are_refused_in_training_too(tmp_path):
    source = _opened(tmp_path / "t.arrow", _vqa(questions=[["a", "b"], ["c", None]]))
    with pytest.raises(UserError, match=r"Row 1 of .*t\.arrow: questions holds null"):
        check_annotations(source, VQA.fields, training=True)


def test_ids_that_stand_twice_are_told(tmp_path):
    source = _opened(tmp_path / "t.arrow", _vqa(question_id=[["01827492", "1827492"], ["q1", "q2"]]))
    check_ids(source, {"question_id"})
    source = _opened(tmp_path / "t.arrow", _vqa(question_id=[["q", "x"], ["y", "q"]]))
    with pytest.raises(UserError, match=r"row 0 of .*t\.arrow and row 1 of .*t\.arrow both have the question_id 'q'"):
        check_ids(source, {"question_id"})
    columns = {"questions": [["a", "b"], ["c", "d"]], "identifier": ["dev-0-0", "dev-0-0"]}
    source = _opened(tmp_path / "t.arrow", pa.record_batch(columns | {"answers": [["True"] * 2] * 2}), NLVR2)
    with pytest.raises(UserError, match="both have the identifier 'dev-0-0'"):
        check_ids(source, {"identifier"})


def test_answers_by_label_whatever_the_types_of_each_file(tmp_path):
    _opened(tmp_path / "a.arrow", _vqa())
    wide = pa.list_(pa.large_list(pa.uint8()))
    _opened(tmp_path / "b.arrow", _vqa(answer_labels=pa.array([[[0], [1, 2]], [[], [2]]], wide)))
    _opened(tmp_path / "c.arrow", _vqa(**{name: pa.nulls(2) for name in ("answers", "answer_labels", "answer_scores")}))
    paths = [tmp_path / f"{name}.arrow" for name in "abc"]
    both = ArrowSplit(paths[:2], VQA, "vqa", {"answers", "answer_labels"}, read_texts=False)
    assert sorted(labelled_answers(both)) == [(0, "yes"), (1, "no"), (2, "2")]
    withheld = ArrowSplit(paths[2:], VQA, "vqa", {"answers", "answer_labels"}, read_texts=False)
    assert withheld.withholds("answer_labels")
    assert labelled_answers(withheld) == []
    _opened(tmp_path / "d.arrow", _vqa(answers=[[["yes"], ["no", None]], [[], ["2"]]]))
    wrong = ArrowSplit([tmp_path / "d.arrow"], VQA, "vqa", {"answers", "answer_labels"}, read_texts=False)
    with pytest.raises(UserError, match=r"Row 0 of .*d\.arrow: answers holds null"):
        labelled_answers(wrong)


@pytest.mark.parametrize("cells", [pa.nulls(2), [[], []], [[None, None], [None, None]], [[[], []], [[], []]]])
def test_labels_without_any_value_are_withheld(tmp_path, cells):
    assert _opened(tmp_path / "t.arrow", _vqa(answer_labels=cells)).withholds("answer_labels")


def test_data_sets_that_differ_in_a_field_cannot_be_joined(tmp_path):
    one = _opened(tmp_path / "a.arrow", _vqa())
    fields = VQA.fields | {"answer_labels": replace(VQA.fields["answer_labels"], kind=TRUTHS)}
    other = _opened(tmp_path / "b.arrow", _vqa(), replace(VQA, fields=fields, writer="other"))
    parts = {Field("answer_labels")}
    preparation = Preparation(transform=None, num_patches=1, text_encoder=None)
    with pytest.raises(
        UserError, match=r"vqav2, other cannot be joined, as they differ in 'answer_labels': vqav2 has diff"
    ):
        Samples("train", [one, other], parts, preparation, training=True, seed=0)
    assert Samples("train", [one, one], parts, preparation, training=True, seed=0).fields == {"answer_labels"}


LEAVES = [
    st.none(),
    st.booleans(),
    st.integers(0, 1),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(0, 1, width=16),
    st.floats(allow_nan=True),
    st.sampled_from(["True", "false", "1", "0"]),
    st.sampled_from(["", "01827492", "é"]),
    st.binary(max_size=3),
    st.decimals(-2, 2, places=2),
    st.dates(),
    st.fixed_dictionaries({"a": st.integers(0, 1)}),
]


COLUMNS = {  # with what often fits: the leaves, and the depth of the lists
    ("vqa", "question_id"): (st.integers(0, 1), 1),
    ("vqa", "answer_labels"): (st.integers(0, 2), 2),
    ("vqa", "answer_scores"): (st.floats(0, 1, width=16), 2),
    ("vqa", "answers"): (st.sampled_from("ab"), 2),
    ("vqa", "question_type"): (st.sampled_from("ab"), 1),
    ("nlvr2", "truth"): (st.sampled_from(["True", "false", "1", "0"]), 1),
    ("nlvr2", "identifier"): (st.sampled_from("ab"), 1),
    ("nlvr2", "statement_type"): (st.sampled_from("ab"), 1),
}


@st.composite
def _cells(draw, fitting: st.SearchStrategy, fitting_depth: int) -> pa.Array:
    """Two rows of any type: often two entries each, in lists up to three deep of any kind, with a dictionary or not."""
    fits = draw(st.booleans())
    leaf = fitting if fits else draw(st.sampled_from([fitting, *LEAVES]))
    leaf = leaf if fits or draw(st.booleans()) else st.one_of(st.none(), leaf)
    depth = fitting_depth if fits else draw(st.integers(0, 3))
    for level in range(depth):
        size = 2 if level == depth - 1 and (fits or draw(st.booleans())) else None
        leaf = st.lists(leaf, min_size=size or 0, max_size=size or 3)
        leaf = leaf if fits or draw(st.booleans()) else st.one_of(st.none(), leaf)
    values = draw(st.lists(leaf, min_size=2, max_size=2))
    try:
        cells = pa.array(values)
    except (pa.ArrowInvalid, OverflowError):  # integers of both ends in one column
        cells = pa.nulls(2)
    kind = cells.type
    others = [kind, pa.dictionary(pa.int32(), kind)]
    if pa.types.is_list(kind):
        inner = kind.value_type
        wide = pa.large_list if draw(st.booleans()) else pa.list_view
        others += [pa.large_list(inner), pa.list_view(inner), pa.large_list_view(inner)]
        if pa.types.is_list(inner):
            others.append(wide(wide(inner.value_type)))
        if pa.types.is_string(inner):
            others += [
                pa.list_(pa.large_string()),
                pa.list_(pa.string_view()),
                pa.list_(pa.dictionary(pa.int8(), inner)),
            ]
    try:
        return pa.array(values, draw(st.sampled_from(others)))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, OverflowError):
        return cells


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(list(COLUMNS)), st.data())
def test_any_column_gives_values_or_one_sentence(tmp_path_factory, column, data):
    """Either every cell can be read and collated, or the first row that cannot is told; nothing else is ever raised."""
    spec, name = CATALOG[column[0]], column[1]
    cells = data.draw(_cells(*COLUMNS[column]))
    path = tmp_path_factory.mktemp("any") / "t.arrow"
    good = _vqa() if spec is VQA else _nlvr2(pa.array([["True", "False"]] * 2))
    columns = {other: good.column(other) for other in good.schema.names} | {spec.fields[name].name: cells}
    for other in {column.name for column in spec.fields.values()} - {spec.fields[name].name}:
        columns.pop(other, None)
    problem = None
    try:
        source = _opened(path, pa.record_batch(columns), spec, fields={name}, rows_at_once=2)
        if source.withholds(name):
            return
        check_annotations(source, {name}, training=True)
    except UserError as error:
        problem = str(error)
    event("understood" if problem is None else "refused")
    if problem is not None:
        assert str(path) in problem
        return
    found = [source.field(source.locate(sample), name) for sample in range(len(source))]
    collated = spec.fields[name].kind.collate(found)
    expected = [value for row in cells.to_pylist() for value in row]
    assert len(collated) == len(expected) == 4
    if isinstance(collated, list):
        assert collated == expected
        json.dumps(collated)
    else:
        assert torch.from_numpy(collated).isfinite().all()
        for ours, theirs in zip(collated.tolist(), expected, strict=True):
            if name == "truth":
                assert ours == (str(theirs).lower() in ("true", "1", "1.0", "1.00"))
            else:
                assert ours[: len(theirs)] == pytest.approx([float(value) for value in theirs], rel=1e-6)
                assert not np.any(ours[len(theirs) :])


def test_labels_of_classes_are_whole_numbers_below_their_count():
    kind = one_of(3)
    assert kind == one_of(3) != one_of(4)
    for values in ([0, 2, 3, -1], [0.0, 2.0, 3.0, 1.5]):
        assert kind.understood(pa.array(values)).tolist() == [True, True, False, False]
    assert kind.understood(pa.array(["0"])) is None
    assert one_of(("a", "b")).understood(pa.array([0, 1])) is None
    assert one_of(("a", "b")).understood(pa.array(["a", "c"])).tolist() == [True, False]
    assert kind.collate([2, 0.0, 1]).tolist() == [2, 0, 1]
    assert kind.collate([2]).dtype == np.int64


REFERRING = CATALOG["refcoco"]
POINTING = DatasetSpec(
    "pointing",
    {"train": ("t",)},
    "questions",
    fields={
        "width": Column("width", NUMBERS, per_text=False),
        "height": Column("height", NUMBERS, per_text=False),
        "boxes": Column("boxes", BOXES),
        "box_ids": Column("box_ids", BOX_IDS, beside="boxes"),
        "answer_index": Column("answer_index", NUMBERS, index_of="boxes"),
    },
)


def _referring(**columns) -> pa.RecordBatch:
    """Two pictures of 40 x 30 pixels, with an expression and with two."""
    good = {
        "expressions": [["a"], ["b", "c"]],
        "sent_id": [[1], [2, 3]],
        "ref_id": [[1], [2, 2]],
        "ann_id": [[9], [7, 7]],
        "boxes": [[[0.0, 0.0, 40.0, 30.0], [1.0, 2.0, 3.0, 4.0]], [[5.0, 5.0, 6.5, 7.0]]],
        "box_ids": [[9, 900100000000], [7]],
        "target_boxes": [[[[0.0, 0.0, 40.0, 30.0]]], [[[5.0, 5.0, 6.5, 7.0]]] * 2],
        "answer_index": [[0], [0, 0]],
        "width": [40, 40],
        "height": [30, 30],
        "image_id": [1, 2],
    }
    return pa.record_batch(good | columns)


def _pointing(**columns) -> pa.RecordBatch:
    """A picture of 40 x 30 pixels with two questions, of two and of one candidate."""
    good = {
        "questions": [["a", "b"]],
        "boxes": [[[[0, 0, 40, 30], [1, 2, 3, 4]], [[5, 5, 6, 7]]]],
        "box_ids": [[["x", "y"], ["x"]]],
        "answer_index": [[1, 0]],
        "width": [40],
        "height": [30],
    }
    return pa.record_batch(good | columns)


@pytest.mark.parametrize(
    ("columns", "row", "problem"),
    [
        (
            {"boxes": [[[0.0, 0, 40, 30], [1, 2, 3, 4]], [[5, 5, 5, 7]]]},
            1,
            "boxes holds [5.0, 5.0, 5.0, 7.0], expected",
        ),
        ({"boxes": [[[0.0, 0, 40, 30], [1, 2, 3, 4]], [[-1, 5, 6, 7]]]}, 1, "boxes holds [-1.0, 5.0, 6.0, 7.0], expec"),
        ({"boxes": [[[0.0, 0, 40, 30], [1, 2, 3]], [[5, 5, 6, 7]]]}, 0, "boxes holds [1.0, 2.0, 3.0], expected boxes"),
        (
            {"boxes": [[[0.0, 0, 40, 30], [1, 2, 3, None]], [[5, 5, 6, 7]]]},
            0,
            "boxes holds [1.0, 2.0, 3.0, None], expec",
        ),
        ({"boxes": [[[0.0, 0, 40, 30], None], [[5, 5, 6, 7]]]}, 0, "boxes holds null, expected boxes [left, top,"),
        (
            {"boxes": [[[0, 0, 40.01, 30], [1, 2, 3, 4]], [[5, 5, 6, 7]]]},
            0,
            "boxes holds [0.0, 0.0, 40.01, 30.0], which ends outside of the picture of 40x30",
        ),
        (
            {"target_boxes": [[[[0, 0, 40, 31.0]]], [[[5, 5, 6, 7]]] * 2]},
            0,
            "target_boxes holds [0.0, 0.0, 40.0, 31.0], ",
        ),
        ({"target_boxes": [[[[0, 0, 40, 30.0]]], [[[5, 5, 6, 7]], []]]}, 1, "target_boxes holds no box for one text"),
        ({"height": [30, 6]}, 1, "boxes holds [5.0, 5.0, 6.5, 7.0], which ends outside of the picture of 40x6"),
        ({"height": [30, None]}, 1, "height holds null, expected a whole number"),
        ({"answer_index": [[2], [0, 0]]}, 0, "answer_index holds 2, of 2 boxes"),
        ({"answer_index": [[0], [0, 1]]}, 1, "answer_index holds 1, of 1 boxes"),
        ({"answer_index": [[0], [0, -1]]}, 1, "answer_index holds -1, expected a whole number"),
        ({"box_ids": [[9], [7]]}, 0, "1 box_ids and 2 boxes for one row"),
        ({"box_ids": [[9, 9], [7]]}, 0, "box_ids holds 9 twice for one row"),
        ({"box_ids": [["a", "a"], ["a"]]}, 0, "box_ids holds a twice for one row"),
        (
            {"proposal_boxes": [[], [[1.0, 1, 2, 31]]]},
            1,
            "proposal_boxes holds [1.0, 1.0, 2.0, 31.0], which ends outside",
        ),
        (
            {"proposal_boxes": [[[1.0, 1, 2, 3]], []], "proposal_scores": [[], []]},
            0,
            "0 proposal_scores and 1 proposal",
        ),
    ],
)
def test_boxes_that_are_not_understood(columns, row, problem):
    found = _problems(_referring(**columns), REFERRING)
    assert any(where == row and told.startswith(problem) for where, told in found), found


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"answer_index": [[1, 1]]}, "answer_index holds 1, of 1 boxes"),
        ({"box_ids": [[["x", "x"], ["x"]]]}, "box_ids holds x twice for one text"),
        ({"box_ids": [[[1, 2**40 + 1], [1, 2]]]}, "2 box_ids and 1 boxes for one text"),
        (
            {"boxes": [[[[0, 0, 40, 30], [1, 2, 3, 31]], [[5, 5, 6, 7]]]]},
            "boxes holds [1, 2, 3, 31], which ends outside",
        ),
        ({"boxes": [[[[0, 0, 40, 30], [1, 2, 3, 4]], []]]}, "boxes holds no box for one text"),
        ({"width": ["40"]}, "width holds '40', expected a whole number"),
    ],
)
def test_candidates_of_texts_that_are_not_understood(columns, problem):
    found = _problems(_pointing(**columns), POINTING)
    assert any(told.startswith(problem) for _, told in found), found


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"boxes": [[[0, 0, 40.0005, 30], [1, 2, 3, 4]], [[5, 5, 6.5, 7]]]},  # rounding
        {"boxes": pa.array([[[0, 0, 40, 30], [1, 2, 3, 4]], [[5, 5, 6, 7]]], pa.list_(pa.list_(pa.float32(), 4)))},
        {"boxes": pa.array([[[0, 0, 40, 30], [1, 2, 3, 4]], [[5, 5, 6, 7]]], pa.large_list(pa.list_(pa.int16())))},
        {"proposal_boxes": [[], [[1.0, 1, 2, 3]]], "proposal_scores": [[], [0.5]]},
        {"box_ids": [["9", "x"], ["9"]]},
    ],
)
def test_boxes_that_are_understood(columns):
    assert _problems(_referring(**columns), REFERRING) == []
    assert _problems(_pointing(), POINTING) == []


def test_boxes_that_are_withheld_are_no_problem():
    withheld = {"target_boxes": [[], []], "answer_index": [[], []], "ref_id": [[], []], "ann_id": [[], []]}
    assert _problems(_referring(**withheld), REFERRING, withheld=True) == []


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["boxes", "target_boxes", "box_ids", "answer_index", "width"]), st.data())
def test_any_column_of_boxes_is_understood_or_refused(name, data):
    cells = data.draw(_cells(st.sampled_from([0, 1, 40, 2.5]), data.draw(st.integers(0, 3))))
    try:
        batch = _referring(**{name: in_plain_layout(cells)})
    except pa.ArrowNotImplementedError:
        return
    for found in (_problems(batch, REFERRING), _problems(batch, REFERRING, withheld=True)):
        assert all(row in (0, 1) and problem for row, problem in found)


def test_the_start_of_a_run_compares_boxes_with_their_picture(tmp_path):
    boxes = [[[0.0, 0.0, 40.0, 30.0]], [[5.0, 5.0, 60.0, 7.0]]]
    source = _opened(tmp_path / "t.arrow", _referring(boxes=boxes, box_ids=[[1], [2]]), REFERRING, fields={"sent_id"})
    with pytest.raises(
        UserError, match=r"Row 1 of .*boxes holds \[5\.0, .*outside of the picture of 40x30.*refcoco --out"
    ):
        check_annotations(source, {"boxes"}, training=True)
    source = _opened(tmp_path / "t.arrow", _referring(answer_index=[[2], [0, 0]]), REFERRING, fields={"sent_id"})
    with pytest.raises(UserError, match="Row 0 of .*answer_index holds 2, of 2 boxes"):
        check_annotations(source, {"answer_index"}, training=True)
