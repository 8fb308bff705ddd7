"""Clean lists of data sets in their public layouts: against an independent computation, and with mistakes of users."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.conftest import GOLDEN
from tests.write_arrow.conftest import table, write_multi30k_root
from vlc.common.errors import MissingFile, UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.clean import CleanList, open_clean_list
from vlc.data.spec import DatasetSpec, ImageKey
from write_arrow.__main__ import main
from write_arrow.sources import vqav2

TASKS = GOLDEN / "tasks"
COCO, FLICKR = TASKS / "retrieval/raw/coco", TASKS / "retrieval/raw/flickr30k"
KARPATHY = {
    "coco": COCO / "karpathy/dataset_coco.json",
    "flickr30k": FLICKR / "karpathy/dataset_flickr30k.json",
}
PUBLISHED = json.loads((TASKS / "clean/clean_lists.json").read_text())
ALIASES = [
    TASKS / "vgqa/raw/image_data.json",
    TASKS / "clean/instances_train2014.json",
    TASKS / "clean/instances_val2014.json",
]
TWELVE = "vqa gqa coco_retrieval f30k_retrieval refcoco refcoco_plus refcocog visual7w guesswhat snli_ve".split()
# The data set of the computation, and ours with the split and what names the annotations of a row.
TRAINED: dict[str, tuple[str, str, Callable[[dict[str, Any]], list[Any]]]] = {
    "vqa/train2014": ("vqa", "vqav2_train", lambda row: row["question_id"]),
    "vqa/val2014": ("vqa", "vqav2_trainable_val", lambda row: row["question_id"]),
    "gqa/train_balanced": ("gqa", "gqa_train", lambda row: row["question_id"]),
    "vgqa/all": ("vgqa_all", "vgqa_all_*", lambda row: row["question_id"]),
    "retrieval_coco/train": ("coco_retrieval", "coco_retrieval_train", lambda row: _captions("coco", row)),
    "retrieval_flickr30k/train": ("f30k_retrieval", "f30k_retrieval_train", lambda row: _captions("flickr30k", row)),
    "refcoco/train": ("refcoco", "refcoco_train", lambda row: row["sent_id"]),
    "refcoco+/train": ("refcoco_plus", "refcoco_plus_train", lambda row: row["sent_id"]),
    "refcocog/train": ("refcocog", "refcocog_train", lambda row: row["sent_id"]),
    "refclef/train": ("refclef", "refclef_train", lambda row: row["sent_id"]),
    "visual7w/train": ("visual7w", "visual7w_train", lambda row: row["qa_id"]),
    "guesswhat/train": ("guesswhat", "guesswhat_train", lambda row: row["game_id"]),
    "snli_ve/train": ("snli_ve", "snli_train", lambda row: row["pair_id"]),
    "visdial/train": ("visdial", "visdial_train", lambda row: [row["image_id"]]),
    "foil/train": ("foil", "foil_train", lambda row: list(map(_foil, row["caption_ids"]))),
    "entities/train": ("flickr_entities", "flickr_entities_train", lambda row: [row["image_id"]]),
    "vcr/train": ("vcr_qa", "vcr_train", lambda row: row["annot_id"]),
    "multi30k/train": ("multi30k", "multi30k_train", lambda row: [_line(row["image_id"])]),
}


def _captions(data_set: str, row: dict[str, Any]) -> list[int]:
    """The numbers of an image's captions."""
    entries = json.loads(KARPATHY[data_set].read_text())["images"]
    return next(entry["sentids"] for entry in entries if entry["filename"] == row["image_id"])


def _line(image: str) -> int:
    """The place of an image in the list of Multi30k's training images."""
    return (TASKS / "multi30k/data/task1/image_splits/train.txt").read_text().split().index(image)


def _foil(caption_id: str) -> tuple[int, int]:
    number, _, place = caption_id.partition("-")
    entry = json.loads((TASKS / "statements/foilv1.0_train_2017.json").read_text())["annotations"][int(place)]
    assert entry["id"] == int(number)
    return entry["id"], entry["foil_id"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Arrow files of all these data sets, as our writers make them."""
    base = tmp_path_factory.mktemp("clean")
    answers = json.loads((TASKS / "vqa/expected/vqa_label2ans_INPUT.json").read_text())
    games = shutil.copytree(TASKS / "pointing/guesswhat/list_release", base / "games")
    statements = shutil.copytree(TASKS / "statements", base / "statements")
    for name in ("train2014", "val2014"):
        (games / name).symlink_to(COCO / name)
        (statements / name).symlink_to(COCO / name)
    (statements / "flickr30k-images").symlink_to(FLICKR / "flickr30k-images")
    roots = {
        "vqav2": TASKS / "vqa/raw",
        "gqa": TASKS / "gqa/raw",
        "vgqa": TASKS / "vgqa/raw",
        "coco_retrieval": COCO,
        "f30k_retrieval": FLICKR,
        **dict.fromkeys(("refcoco", "refcoco+", "refcocog", "refclef"), TASKS / "referring/raw"),
        "visual7w": TASKS / "pointing/visual7w",
        "guesswhat": games,
        **dict.fromkeys(("snli_ve", "foil"), statements),
        "visdial": TASKS / "visdial",
        "flickr_entities": TASKS / "flickr_entities/raw",
        "vcr": TASKS / "vcr",
        "multi30k": write_multi30k_root(base / "multi30k"),
    }
    with pytest.MonkeyPatch.context() as patch:  # few questions make no vocabulary
        patch.setattr(vqav2, "vocabulary", lambda conversion: {answer: label for label, answer in enumerate(answers)})
        patch.setattr(vqav2, "REST_VAL", 1)
        for name, root in roots.items():
            words = ["--all", "--num-val", "7"] if name == "vgqa" else []
            main([name, "--root", str(root), "--out", str(base / "out"), "--workers", "1", "--no-verify", *words])
    return base / "out"


def _keys_of_vcr() -> dict[str, str]:
    """The keys of VCR's images by those of the computation, which has the names of their files."""
    lines = [line for path in (TASKS / "vcr/vcr1annots").iterdir() for line in path.read_text().splitlines()]
    return {f"vcr:{entry['img_fn']}": f"vcr:{entry['img_id']}" for entry in map(json.loads, lines)}


def _banned(case: str) -> list[str]:
    spelled = _keys_of_vcr()
    return sorted(spelled.get(key, key) for key in PUBLISHED["banned"][case])


def _list(folder: Path, case: str, tmp_path: Path) -> CleanList:
    """The list of a case, as the command writes it."""
    definition, exclude, form = case.split("/")
    out, aliases = tmp_path / "clean.json", list(map(str, ALIASES))
    words = ["--datasets", *TWELVE] if definition == "tasks12" else []
    words += ["--aliases", *aliases] if form == "closed" else []
    main(["clean", str(folder), "--out", str(out), *words])
    found = open_clean_list(exclude, str(out), "", None)
    assert found is not None
    return found


@pytest.mark.parametrize("case", PUBLISHED["banned"])
def test_lists_and_what_they_remove_are_those_of_an_independent_computation(case, written, tmp_path):
    clean = _list(written, case, tmp_path)
    assert clean.keys.to_pylist() == _banned(case)
    for name, (dataset, pattern, ids_of) in TRAINED.items():
        paths, spec = sorted(written.glob(f"{pattern}.arrow")), CATALOG[dataset]
        leaves_out = partial(clean.rows, dataset=dataset, spec=spec, split="train")
        source = ArrowSplit(paths, spec, dataset, {spec.text}, leaves_out=leaves_out)
        kept, present = set(), set()
        for row, used in zip(
            (r for path in paths for r in table(path).to_pylist()), source.rows_with_samples(), strict=True
        ):
            present |= set(ids_of(row))
            kept |= set(ids_of(row)) if used else set()
        expected = {tuple(one) if isinstance(one, list) else one for one in PUBLISHED["removed"][case][name]}
        assert present - kept == expected & present, name
        assert present, name


def _run(folder: Path, *words: str) -> dict[str, Any]:
    main(["clean", str(folder), *words])
    return json.loads((folder / "clean.json").read_text())


@pytest.fixture
def folder(tmp_path) -> Path:
    """Retrieval splits of images of COCO and Flickr30k."""
    for collection, first in (("coco", 1), ("f30k", 100)):
        for place, split in enumerate(("train", "val", "test")):
            names = [f"{first + 3 * place + number}.jpg" for number in range(3)]
            columns = {"image": [b""] * 3, "caption": [["a"]] * 3, "image_id": names}
            tiny.write_table(tmp_path / f"{collection}_retrieval_{split}.arrow", columns)
    return tmp_path


def test_validation_and_test_stand_apart_and_all_data_sets_of_the_folder_are_read(folder, capsys):
    content = _run(folder)
    assert content["val"] == ["coco:4", "coco:5", "coco:6", "flickr:103", "flickr:104", "flickr:105"]
    assert content["test"] == ["coco:7", "coco:8", "coco:9", "flickr:106", "flickr:107", "flickr:108"]
    assert content["splits"] == {"coco_retrieval": ["val", "test"], "f30k_retrieval": ["val", "test"]}
    assert "Without --aliases" in capsys.readouterr().out
    assert _run(folder, "--datasets", "coco_retrieval")["test"] == ["coco:7", "coco:8", "coco:9"]


def _aliases(path: Path, content: Any) -> list[str]:
    path.write_text(json.dumps(content))
    return ["--aliases", str(path)]


def test_a_chain_of_aliases_is_followed_through_files_in_any_order(folder, tmp_path):
    _, first = _aliases(tmp_path / "a.json", [{"image_id": 1, "coco_id": 50, "flickr_id": "0051"}])
    _, second = _aliases(
        tmp_path / "b.json", [{"image_id": 2, "coco_id": 7, "flickr_id": 50}, {"image_id": 3, "coco_id": None}]
    )
    url = "http://farm1.staticflickr.com/1/50_abc_z.jpg"
    images = [{"id": 50, "flickr_url": url}, {"id": 51}, {"id": 52, "flickr_url": "http://x/y.jpg"}]
    _, third = _aliases(tmp_path / "c.json", {"info": {}, "images": images, "annotations": "not read"})
    expected = {"coco:50", "coco:7", "flickr:50", "flickr:51", "vg:1", "vg:2"}
    for order in ([first, second, third], [third, second, first]):
        content = _run(folder, "--datasets", "coco_retrieval", "--aliases", *order)
        assert set(content["test"]) == expected | {"coco:8", "coco:9"}
        assert set(content["val"]) == {"coco:4", "coco:5", "coco:6"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"coco_id": 5}], r"an entry should have a number image_id: \"\{'coco_id': 5\}"),
        ([{"image_id": "x"}], "should have a number image_id"),
        ([5], "should have a number image_id: '5'"),
        ([{"image_id": 1, "coco_id": True}], "should have a number coco_id"),
        ([{"image_id": 1, "coco_id": None}], "no image has coco_id or flickr_id"),
        ({"images": [{"id": 1}]}, "no image has flickr_url"),
        ({"annotations": []}, "should be a JSON object with a list under 'images'"),
        ("x", "should be a JSON list"),
    ],
)
def test_files_of_aliases_that_cannot_be_used_are_told(folder, tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        _run(folder, *_aliases(tmp_path / "a.json", content))
    assert not (folder / "clean.json").exists()


def test_what_is_missing_is_told(folder, tmp_path):
    with pytest.raises(MissingFile, match=r"--aliases .*absent\.json does not exist"):
        _run(folder, "--aliases", str(tmp_path / "absent.json"))
    (tmp_path / "cut.json").write_text('[{"image_id": 1, "coco_id": 7')
    with pytest.raises(UserError, match="cut short"):
        _run(folder, "--aliases", str(tmp_path / "cut.json"))
    with pytest.raises(MissingFile, match="nothing is not a folder"):
        _run(folder / "nothing")
    (folder / "empty").mkdir()
    with pytest.raises(MissingFile, match="empty has no files of an evaluated split"):
        _run(folder / "empty")
    with pytest.raises(MissingFile, match="has no file of an evaluated split of data set gqa"):
        _run(folder, "--datasets", "coco_retrieval", "gqa")
    with pytest.raises(UserError, match="Unknown data set 'cocco'. Did you mean coco"):
        _run(folder, "--datasets", "cocco")
    with pytest.raises(UserError, match="the rows of nlvr2 do not say which images"):
        _run(folder, "--datasets", "nlvr2")
    with pytest.raises(UserError, match="is a URL: pass --out FILE"):
        main(["clean", f"file://{folder}"])


def test_damaged_files_and_files_of_other_columns_are_told(folder):
    path = folder / "coco_retrieval_test.arrow"
    tiny.write_table(path, {"image": [b""], "caption": [["a"]]})
    with pytest.raises(
        UserError, match=r"has no column image_id, .* 'coco_retrieval'\. .*write_arrow coco_retrieval --out"
    ):
        _run(folder)
    path.write_bytes(b"ARROW1\0\0" + b"x" * 100)
    with pytest.raises(UserError, match=r"coco_retrieval_test\.arrow is damaged"):
        _run(folder)


def test_files_behind_a_url_are_read_through_a_cache(folder, tmp_path):
    out = tmp_path / "lists/clean.json"
    main(["clean", f"file://{folder}", "--out", str(out), "--cache", str(tmp_path / "cache")])
    assert len(json.loads(out.read_text())["test"]) == 6


def test_a_data_set_of_a_users_file_is_read(folder, monkeypatch):
    splits = {"train": ("a",), "val": ("b",), "test": ("mine_test",)}
    spec = DatasetSpec("table", splits, image_key=ImageKey("name", "coco"))
    monkeypatch.setattr("write_arrow.clean.own_dataset", {"my_file.py": ("mine", spec)}.__getitem__)
    columns = {"image": [b""], "caption": [["a"]], "name": ["COCO_val2014_000000000077.jpg"]}
    tiny.write_table(folder / "mine_test.arrow", columns)
    content = _run(folder, "--datasets", "my_file.py", "coco_retrieval")
    assert content["test"] == ["coco:7", "coco:77", "coco:8", "coco:9"]
    assert content["splits"]["mine"] == ["test"]
