"""With --compat, the published converters' files; without, each difference is one we want."""

import json
import re
import shutil
from collections import Counter

import pytest

from tests.conftest import GOLDEN
from tests.write_arrow.conftest import rows, table
from vlc.common.errors import MissingFile, UserError
from vlc.data.catalog import CATALOG
from write_arrow.sources import SOURCES

# raw folder -> source
RAW = {
    "coco": "coco",
    "f30k": "f30k",
    "vqa": "vqav2",
    "vqa_small": "vqav2",
    "nlvr2": "nlvr2",
    "vg": "vg",
    "sbu": "sbu",
    "conceptual_caption": "gcc",
    "openimages": "openimages",
    "pretrain_f30k": "pretrain_flickr30k",
    "pretrain_gqa": "pretrain_gqa",
    "pretrain_vg": "pretrain_vg",
    "pretrain_vqav2": "pretrain_vqav2",
    "pretrain_vqav2_str": "pretrain_vqav2",
    "vgqa": "vgqa",
}
SHUFFLED_APART = {"vqav2_trainable_val.arrow", "vqav2_rest_val.arrow"}  # chance decided who is in which


@pytest.mark.parametrize("folder", RAW)
def test_compat_gives_the_published_files(folder, raw, write):
    out = write(RAW[folder], raw / folder, "--compat")
    expected = sorted((GOLDEN / "arrow" / folder).glob("*.arrow"))
    assert sorted(path.name for path in out.iterdir()) == [path.name for path in expected]
    for path in expected:
        ours, theirs = table(out / path.name), table(path)
        assert ours.schema.equals(theirs.schema), path.name  # names, types and nullability
        key = "identifier" if "identifier" in ours.column_names else "image_id"
        if folder == "vqa" and path.name in SHUFFLED_APART:
            assert ours.num_rows == theirs.num_rows
            all_theirs = {row[key]: row for row in rows(path.with_name("vqav2_val.arrow"))}
            assert all(row == all_theirs[row[key]] for row in ours.to_pylist())
        else:
            assert rows(out / path.name, key) == rows(path, key), path.name
    if folder == "vqa":
        apart = [row["image_id"] for name in SHUFFLED_APART for row in rows(out / name)]
        assert sorted(apart) == [row["image_id"] for row in rows(out / "vqav2_val.arrow")]


def test_the_second_published_vgqa_converter_gives_the_same(raw, write):
    out = write("vgqa", raw / "vgqa", "--compat")
    assert rows(out / "vgqa_train.arrow") == rows(GOLDEN / "arrow/vgqa_utils/vgqa_train.arrow")


@pytest.mark.parametrize("folder", [name for name in RAW if name not in ("nlvr2", "vgqa")])
def test_counts_are_those_the_published_converters_print(folder, raw, write, capsys):
    write(RAW[folder], raw / folder, "--compat")
    printed = json.loads((GOLDEN / "arrow/writer_log.json").read_text())[folder]["printed"]
    theirs = [line.split() for line in printed if re.fullmatch(r"[\d ]+", line)]
    ours = re.findall(r": ([\d,]+) images, ([\d,]+) of them annotated", capsys.readouterr().out)
    ours = [[number.replace(",", "") for number in found] for found in ours]
    if folder in ("coco", "f30k"):  # told by split
        images, annotated, _ = theirs[0]
        assert {found[0] for found in ours} == {images}
        assert sum(int(found[1]) for found in ours) == int(annotated)
    else:
        assert sorted(ours) == sorted(found[:2] for found in theirs)


def test_every_data_set_of_the_catalogue_is_written_with_the_columns_it_reads(raw, write):
    for name, spec in CATALOG.items():
        assert spec.writer.split()[0] in SOURCES, name
    for folder, source in RAW.items():
        if source == "vgqa":
            continue
        out = write(source, raw / folder, out=folder)
        for name, spec in CATALOG.items():
            if spec.writer == source:
                for split, stems in spec.tables.items():
                    for stem in stems:
                        path = out / (f"{stem[:-1]}0.arrow" if stem.endswith("*") else f"{stem}.arrow")
                        fields = frozenset() if split in spec.unlabelled else frozenset(spec.fields)
                        assert spec.columns(fields) <= set(table(path).column_names), (name, stem)


def test_a_missing_file_is_told_with_the_layout(raw, tmp_path, write):
    with pytest.raises(MissingFile, match=r"nowhere is not a folder.*karpathy/dataset_coco\.json"):
        write("coco", tmp_path / "nowhere")
    (tmp_path / "raw/images_train").mkdir(parents=True)
    with pytest.raises(MissingFile, match=r"annot\.json does not exist.*--root should hold: annot\.json, images_train"):
        write("sbu", tmp_path / "raw")
    (tmp_path / "raw/annot.json").write_text('[["x.jpg", "text"]]')
    with pytest.raises(UserError, match=r"sbu_\*: no image with annotations was found under"):
        write("sbu", tmp_path / "raw")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[["x.jpg", "text"]', "cut short"),
        ('{"a": 1}', "should be a JSON list"),
        ('[["x.jpg"]]', r"an entry is not \[path, text\]"),
        ('[["x.jpg", [1]]]', r"an entry is not \[path, text\]"),
    ],
)
def test_bad_annotations_are_told(content, message, tmp_path, write):
    (tmp_path / "raw/images_train").mkdir(parents=True)
    (tmp_path / "raw/annot.json").write_text(content)
    with pytest.raises(UserError, match=message):
        write("sbu", tmp_path / "raw")


# -- what we do otherwise


def _captions(path):
    return {row["image_id"]: row["caption"] for row in table(path).to_pylist()}


def test_images_of_one_name_keep_their_own_captions(raw, write):
    captions = _captions(write("sbu", raw / "sbu") / "sbu_0.arrow")
    assert captions["images_train/0000/dup.jpg"] == ["caption of folder 0000"]
    assert captions["images_train/0001/dup.jpg"] == ["caption of folder 0001"]
    assert len(captions) == 8


@pytest.mark.parametrize(("folder", "stem"), [("openimages", "openimages_0"), ("pretrain_gqa", "pretrain_gqa_0")])
def test_all_captions_of_an_image_are_kept(folder, stem, raw, write):
    captions = _captions(write(RAW[folder], raw / folder) / f"{stem}.arrow")
    assert sorted(map(len, captions.values())) == [1, 1, 1, 1, 2]


def test_a_single_text_is_a_list_of_one(raw, write):
    captions = _captions(write("pretrain_vqav2", raw / "pretrain_vqav2_str") / "pretrain_vqa_0.arrow")
    assert captions["train2014/pretrain_vqav2_0.jpg"] == ["caption 8000-0: A plain caption."]


def test_urls_find_their_file_by_name_unless_that_is_ambiguous(tmp_path, raw, write):
    source = next((raw / "sbu/images_train/0000").glob("*.jpg"))
    for path in ("a/one.jpg", "b/one.jpg", "a/two.jpg", "a/three.jpg"):
        (tmp_path / "raw/images_train" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw/images_train" / path).write_bytes(source.read_bytes())
    pairs = [
        ["https://host/one.jpg", "which of two files?"],
        ["https://host/two.jpg", "of this host"],
        ["https://other/two.jpg", "or of that one?"],
        ["https://host/three.jpg", "clear"],
    ]
    (tmp_path / "raw/annot.json").write_text(json.dumps(pairs))
    out = write("sbu", tmp_path / "raw")
    assert _captions(out / "sbu_0.arrow") == {"images_train/a/three.jpg": ["clear"]}
    rejected = [json.loads(line) for line in (out / "sbu_0.rejected.jsonl").read_text().splitlines()]
    assert [entry["path"] for entry in rejected] == [path for path, _ in pairs[:3]]
    assert "2 files have this name" in rejected[0]["reason"]
    assert "several annotated paths" in rejected[1]["reason"]


def test_vqa_answers_are_looked_up_normalised(raw, write):
    out = write("vqav2", raw / "vqa_small")
    compat = write("vqav2", raw / "vqa_small", "--compat", out="compat")
    ours, theirs = ({row["image_id"]: row for row in rows(path / "vqav2_train.arrow")} for path in (out, compat))
    annotations = json.loads((raw / "vqa_small/v2_mscoco_train2014_annotations.json").read_text())["annotations"]
    by_question = {entry["question_id"]: [a["answer"] for a in entry["answers"]] for entry in annotations}
    row = ours[5]
    number = row["question_id"].index(5000)
    assert by_question[5000] == ["2"] * 10
    assert (row["answers"][number], row["answer_scores"][number]) == (["2"], [1.0])
    counts = Counter(by_question[4002])  # eight "two" and two "2": ten votes for one answer
    assert counts == {"two": 8, "2": 2}
    number = ours[4]["question_id"].index(4002)
    assert ours[4]["answer_scores"][number] == [1.0]
    assert theirs[4]["answer_scores"] == [[0.6]]
    assert json.loads((out / "vqav2_answers.json").read_text())[0] == "2"


def test_validation_keeps_the_questions_that_no_known_answer_fits(raw, write):
    kept = {row["image_id"]: row for row in rows(write("vqav2", raw / "vqa_small") / "vqav2_rest_val.arrow")}
    assert len(kept) == 12
    assert kept[2007]["answers"] == [[]]
    assert kept[2007]["answer_types"] == ["other"]
    published = rows(GOLDEN / "arrow/vqa_small/vqav2_rest_val.arrow")
    assert {row["image_id"] for row in published} < set(kept)


def test_vgqa_leaves_out_what_vqa_validates_on_and_uses_its_vocabulary(raw, write):
    with pytest.raises(UserError, match=r"vqav2_rest_val\.arrow does not exist.*--keep-validation-images"):
        write("vgqa", raw / "vgqa", out="without")
    out = write("vqav2", raw / "vqa", out="both")
    held_out = {row["image_id"] for row in rows(out / "vqav2_rest_val.arrow")}
    vocabulary = json.loads((out / "vqav2_answers.json").read_text())
    images = json.loads((raw / "vgqa/image_data.json").read_text())
    usable = {
        entry["image_id"] for entry in images if entry["coco_id"] is not None and entry["coco_id"] not in held_out
    }
    write("vgqa", raw / "vgqa", out="both")
    found = rows(out / "vgqa_train.arrow")
    everything = rows(write("vgqa", raw / "vgqa", "--keep-validation-images", out="all") / "vgqa_train.arrow")
    assert [row["image_id"] for row in found] == [row["image_id"] for row in everything if row["image_id"] in usable]
    assert 0 < len(found) < len(everything)
    for row in found:
        assert [[vocabulary[label] for label in labels] for labels in row["answer_labels"]] == row["answers"]


def test_vgqa_reads_pickles_of_plain_containers_only(raw, tmp_path, write):
    root = tmp_path / "raw"
    root.mkdir()
    for name in ("images", "question_answers.json", "image_data.json", "coco_vqa_label_info.pkl"):
        (root / name).symlink_to(raw / "vgqa" / name)
    out = write("vgqa", root, "--compat")
    assert rows(out / "vgqa_train.arrow") == rows(GOLDEN / "arrow/vgqa/vgqa_train.arrow")
    (root / "coco_vqa_label_info.pkl").unlink()
    (root / "coco_vqa_label_info.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match=r"cannot be read safely \(it refers to os\.system\)"):
        write("vgqa", root, "--compat", out="other")


def test_the_order_is_fixed_by_the_seed(raw, write):
    def order(out, *words):
        path = write("coco", raw / "coco", *words, out=out) / "coco_caption_karpathy_train.arrow"
        return [row["image_id"] for row in table(path).to_pylist()]

    first = order("a")
    assert order("b", "--seed", "0") == first
    assert order("c", "--seed", "1") != first
    assert sorted(order("d", "--seed", "1")) == sorted(first)


def test_nlvr2_without_an_image_is_left_out_and_listed(raw, tmp_path, write):
    shutil.copytree(raw / "nlvr2", tmp_path / "raw")
    (tmp_path / "raw/dev/dev-7-1-img1.png").unlink()
    out = write("nlvr2", tmp_path / "raw")
    assert [row["identifier"] for row in table(out / "nlvr2_dev.arrow").to_pylist()] == [
        "dev-0-0",
        "dev-14-0",
        "dev-21-1",
    ]
    rejected = json.loads((out / "nlvr2_dev.rejected.jsonl").read_text())
    assert rejected == {"path": "dev/dev-7-1-img1.png", "reason": "no such file"}


def _relabel(raw, tmp_path, label) -> None:
    """The raw data of nlvr2 with other labels in dev: `label` of the published one."""
    shutil.copytree(raw / "nlvr2", tmp_path / "raw")
    path = tmp_path / "raw/nlvr2/data/dev.json"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert {entry["label"] for entry in entries} == {"True", "False"}
    path.write_text("\n".join(json.dumps(entry | {"label": label(entry["label"] == "True")}) for entry in entries))


@pytest.mark.parametrize("label", [bool, int, float, lambda true: str(true).lower(), lambda true: str(int(true))])
def test_nlvr2_is_written_alike_from_all_known_spellings(label, raw, tmp_path, write):
    _relabel(raw, tmp_path, label)
    ours = rows(write("nlvr2", tmp_path / "raw", "--compat") / "nlvr2_dev.arrow", "identifier")
    assert ours == rows(GOLDEN / "arrow/nlvr2/nlvr2_dev.arrow", "identifier")


@pytest.mark.parametrize("label", ["yes", None, 2, [True]])
def test_nlvr2_refuses_other_spellings(label, raw, tmp_path, write):
    _relabel(raw, tmp_path, lambda true: label)
    told = re.escape(f"has label {label!r}, expected true or false (")
    with pytest.raises(UserError, match=rf"dev\.json: dev-\d+-\d+-\d+ {told}"):
        write("nlvr2", tmp_path / "raw")


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("questions", {"question_id": "01827492"}, "question_id is '01827492', expected an integer, in the entry"),
        ("questions", {"question_id": 1.5}, r"question_id is '1\.5', expected an integer"),
        ("questions", {"image_id": "1a"}, "image_id is '1a', expected an integer"),
        ("questions", {"question": None}, "question is 'None', expected a string"),
        ("annotations", {"multiple_choice_answer": 2}, "multiple_choice_answer is '2', expected a string"),
        ("annotations", {"answers": [{"answer": 2}]}, "answer is '2', expected a string"),
        ("annotations", {"answers": "no"}, "answers is 'no', expected a list"),
    ],
)
def test_vqa_annotations_of_other_types_are_told(file, change, told, raw, tmp_path, write):
    shutil.copytree(raw / "vqa_small", tmp_path / "raw")
    name = {"questions": "v2_OpenEnded_mscoco_train2014_questions", "annotations": "v2_mscoco_train2014_annotations"}
    path = tmp_path / f"raw/{name[file]}.json"
    content = json.loads(path.read_text())
    content[file][1] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{path}: {told}"):
        write("vqav2", tmp_path / "raw")


@pytest.mark.parametrize("label", [-1, 2**24, 3.5, "3", None, True, [3]])
def test_labels_that_no_vocabulary_has_are_not_written(label, raw, tmp_path, write):
    """vgqa reads labels from a file of the published code, which may hold anything."""
    root = tmp_path / "raw"
    shutil.copytree(raw / "vgqa", root)
    (root / "coco_vqa_label_info.pkl").unlink()
    labels = dict.fromkeys(
        {answer for row in rows(GOLDEN / "arrow/vgqa/vgqa_train.arrow") for (answer,) in row["answers"]}, label
    )
    (root / "coco_vqa_label_info.json").write_text(json.dumps({"ans2label": labels}))
    told = re.escape(f"has label {label!r}, expected different whole numbers from 0")
    with pytest.raises(UserError, match=rf"coco_vqa_label_info\.json: answer '.*' {told}"):
        write("vgqa", root, "--compat")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coco_vqa_label_info.json", b"{", "cannot be read safely"),
        ("coco_vqa_label_info.json", b"[]", "an entry lacks ans2label"),
        ("coco_vqa_label_info.json", b'{"ans2label": {"yes": 3, "no": 3}}', "label 3 stands for 'yes' and for 'no'"),
        ("coco_vqa_label_info.pkl", b"\x80\x04", "cannot be read safely"),
        ("vqa_labels_info.pkl", b"", "cannot be read safely"),
    ],
)
def test_files_of_labels_that_cannot_be_used_are_told(name, content, message, raw, tmp_path, write):
    root = tmp_path / "raw"
    shutil.copytree(raw / "vgqa", root)
    for path in root.glob("*label_info*"):
        path.unlink()
    (root / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{re.escape(name)}.*{message}"):
        write("vgqa", root, "--compat")


@pytest.mark.parametrize("content", ["[", "{}", "[1]"])
def test_a_damaged_vocabulary_of_vqav2_is_told(content, raw, tmp_path, write):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/vqav2_answers.json").write_text(content)
    with pytest.raises(UserError, match=r"vqav2_answers\.json"):
        write("vgqa", raw / "vgqa", "--keep-validation-images")


def test_numbers_of_vgqa_may_be_spelled_as_texts(raw, tmp_path, write):
    root = tmp_path / "raw"
    shutil.copytree(raw / "vgqa", root)
    for name in ("image_data.json", "question_answers.json"):
        text = (root / name).read_text()
        (root / name).write_text(re.sub(r'("(?:image_id|coco_id|qa_id)": )(\d+)', r'\1"\2"', text))
    assert '"coco_id": "' in (root / "image_data.json").read_text()
    out = write("vgqa", root, "--compat")
    assert rows(out / "vgqa_train.arrow") == rows(GOLDEN / "arrow/vgqa/vgqa_train.arrow")
