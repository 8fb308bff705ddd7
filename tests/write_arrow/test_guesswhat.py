"""GuessWhat?! in both of its releases: games for the guesser, questions for the oracle, and what is left out."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import GOLDEN
from tests.write_arrow.conftest import table
from vlc.common.errors import MissingFile, UserError

POINTING = GOLDEN / "tasks/pointing"
GAMES = [game for game in json.loads((POINTING / "expected/pointing.json").read_text())["guesswhat"] if game["oracle"]]
IMAGES = GOLDEN / "tasks/retrieval/raw/coco"
SPLITS = ("train", "valid", "test")


@pytest.fixture(params=["list_release", "dict_release"])
def root(request, tmp_path) -> Path:
    return _root(tmp_path / "raw", request.param)


@pytest.fixture
def lists(tmp_path) -> Path:
    return _root(tmp_path / "lists", "list_release")


def _root(folder: Path, release: str) -> Path:
    shutil.copytree(POINTING / "guesswhat" / release, folder)
    for name in ("train2014", "val2014"):
        (folder / name).symlink_to(IMAGES / name)
    return folder


def _games(split: str, *statuses: str) -> list[dict[str, Any]]:
    """The games of a split with these statuses, each once, in the order of their pictures."""
    games = {game["game_id"]: game for game in GAMES if game["split"] == split and game["status"] in statuses}
    images = list(dict.fromkeys(game["image_id"] for game in GAMES if game["split"] == split))
    return sorted(games.values(), key=lambda game: images.index(game["image_id"]))


def _texts(path: Path) -> list[dict[str, Any]]:
    """The values of each text of a table, with those of its row."""
    rows = table(path).to_pylist()
    alike = {"image", "width", "height", "image_id", "split"}
    return [
        {name: values if name in alike else values[place] for name, values in row.items()}
        for row in rows
        for place in range(len(row["questions"]))
    ]


def _change(root: Path, split: str, change: Callable[[dict], None], line: int = 0) -> None:
    path = root / f"guesswhat.{split}.jsonl.gz"
    entries = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    change(entries[line])
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, entries)).encode()))


def _rejected(out: Path, stem: str) -> list[str]:
    lines = (out / f"{stem}.rejected.jsonl").read_text().splitlines()
    return [json.loads(line)["reason"] for line in lines]


@pytest.mark.parametrize("split", SPLITS)
def test_games_are_the_ones_of_the_files(write, root, split):
    found = _texts(write("guesswhat", root) / f"guesswhat_{split}.arrow")
    games = _games(split, "success")
    assert [one["game_id"] for one in found] == [game["game_id"] for game in games]
    for one, game in zip(found, games, strict=True):
        assert one["boxes"] == game["boxes"]
        assert one["box_ids"] == game["candidates"]
        assert one["box_names"] == game["categories"]
        assert one["answer_index"] == game["target"]
        assert one["dialogue"][::2] == [question for _, question, _ in game["oracle"]]
        assert one["questions"] == one["dialogue"][-2]
        assert (one["image_id"], one["split"], one["status"]) == (game["image_id"], split, "success")
        assert one["image"] == next(IMAGES.rglob(f"*{game['image_id']}.jpg")).read_bytes()


@pytest.mark.parametrize("split", SPLITS)
def test_questions_of_the_oracle_know_their_object(write, root, split):
    found = _texts(write("guesswhat", root, "--status", "all") / f"guesswhat_oracle_{split}.arrow")
    games = _games(split, "success", "failure", "incomplete")
    questions = [(game, question) for game in games for question in game["oracle"]]
    for one, (game, (number, words, label)) in zip(found, questions, strict=True):
        assert (one["question_id"], one["questions"], one["labels"]) == (number, words, label)
        assert one["target_boxes"] == [game["boxes"][game["target"]]]
        assert one["categories"] == game["categories"][game["target"]]
    published = np.load(POINTING / f"expected/guesswhat_oracle_{split}.npz")
    targets = dict(zip(published["id"].tolist(), published["target"], strict=True))
    assert {one["question_id"] for one in found} == set(targets)
    for one in found if split != "test" else ():  # the published loader gives the test split no targets
        assert targets[one["question_id"]].tolist() == np.eye(3)[one["labels"]].tolist()


def test_both_releases_are_the_same_table(write, tmp_path):
    outs = [
        write("guesswhat", _root(tmp_path / name, name), out=f"{name}_out") for name in ("list_release", "dict_release")
    ]
    for split in SPLITS:
        for stem in (f"guesswhat_{split}.arrow", f"guesswhat_oracle_{split}.arrow"):
            assert table(outs[0] / stem).equals(table(outs[1] / stem))


def test_boxes_and_sizes_are_the_ones_of_the_public_code(write, root):
    published = json.loads((POINTING / "expected/guesswhat_dict_release.json").read_text())
    out = write("guesswhat", root, "--status", "all")
    for split in SPLITS:
        games = {int(game["dialogue_id"]): game for game in published[split]["games"]}
        for one in _texts(out / f"guesswhat_{split}.arrow"):
            game = games[one["game_id"]]
            assert (one["width"], one["height"]) == (game["width"], game["height"])
            assert one["dialogue"][1::2] == game["answers"]
            edges = {
                number: [x, y, x + width, y + height]
                for number, (x, y, width, height) in zip(map(int, game["object_ids"]), game["bbox"], strict=True)
            }
            assert dict(zip(one["box_ids"], one["boxes"], strict=True)) == edges
            assert one["box_ids"][one["answer_index"]] == int(game["object_id"])


def test_games_are_chosen_by_how_they_ended(write, lists, capsys):
    out = write("guesswhat", lists, "--status", "failure", "success")
    found = [one["game_id"] for one in _texts(out / "guesswhat_train.arrow")]
    assert found == [game["game_id"] for game in _games("train", "failure", "success")]
    told = capsys.readouterr().out
    assert f"guesswhat_train: {len(found)} games with 15 questions about 4 pictures; 0 games and pictures" in told
    assert "3 games had ended in another way" in told
    with pytest.raises(MissingFile, match="guesswhat_test: no image with annotations was found"):
        write("guesswhat", lists, "--status", "incomplete")


def test_what_is_left_out_is_counted_and_listed(write, lists, capsys):
    out = write("guesswhat", lists, "--status", "all")
    told = capsys.readouterr().out
    assert "1 games and pictures were left out, 0 games had ended in another way, 1 lines repeated a game" in told
    assert _rejected(out, "guesswhat_train") == ["game 113015 has no questions"]
    assert _rejected(out, "guesswhat_oracle_train") == ["game 113015 has no questions"]


def _move_target(game: dict) -> None:
    next(one for one in game["objects"] if one["id"] == game["object_id"])["bbox"] = [1000, 0, 9, 9]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda game: game.update(object_id=5), "game 113012 is about object 5, of which it has 0"),
        (
            lambda game: game["objects"].append(game["objects"][2]),
            "game 113012 is about object 111385, of which it has 2",
        ),
        (_move_target, "game 113012 is about object 111385, which has no area in the picture"),
        (lambda game: game["qas"][1].update(question=" "), "game 113012 has question 200031 without text"),
    ],
)
def test_games_that_cannot_be_guessed_are_listed(write, lists, change, reason):
    _change(lists, "test", change)
    out = write("guesswhat", lists, "--status", "all")
    assert _rejected(out, "guesswhat_test") == [reason]
    assert [one["game_id"] for one in _texts(out / "guesswhat_test.arrow")] == [113013]


def test_objects_outside_of_the_picture_are_left_out_and_others_are_cut(write, lists, capsys):
    def change(game: dict) -> None:
        game["objects"][0]["bbox"] = [-5, -9, 5, 20]
        game["objects"][1]["bbox"] = [-0.5, 20, 500, 10]

    _change(lists, "test", change)
    (game,) = _texts(write("guesswhat", lists) / "guesswhat_test.arrow")
    assert len(game["boxes"]) == len(game["box_ids"]) == len(game["box_names"]) == 2
    assert [0, 20, game["width"], 30] in game["boxes"]
    assert game["box_ids"][game["answer_index"]] == 111385
    told = capsys.readouterr().out
    assert (
        "Objects of guesswhat_test: 1 stick out of their picture by more than a pixel and were cut, 1 without" in told
    )


def test_a_game_without_its_picture_is_listed(write, lists):
    for name in ("train2014", "val2014"):
        (lists / name).unlink()
        shutil.copytree(IMAGES / name, lists / name)
    (lists / "train2014/COCO_train2014_000000110114.jpg").unlink()
    out = write("guesswhat", lists)
    missing = "no such file, nor val2014/COCO_val2014_000000110114.jpg; 1 games are about it"
    assert _rejected(out, "guesswhat_train") == [missing]
    (lists / "val2014/COCO_val2014_000000115055.jpg").unlink()
    with pytest.raises(MissingFile, match="guesswhat_oracle_test: no image with annotations|guesswhat_test: no image"):
        write("guesswhat", lists)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda game: game["qas"][0].update(answer="Maybe"),
            "game 113012: question 200030 has the answer 'Maybe', not one",
        ),
        (lambda game: game["objects"][0].update(bbox=[1, 2, 3]), r"game 113012: a box is \[1, 2, 3\], expected four"),
        (lambda game: game["image"].pop("id"), r"guesswhat\.test\.jsonl\.gz: an entry lacks id, width, height"),
        (lambda game: game.update(qas=5), "qas is '5', expected a list"),
    ],
)
def test_a_wrong_game_is_named(write, lists, change, message):
    _change(lists, "test", change)
    with pytest.raises(UserError, match=message):
        write("guesswhat", lists)


def test_a_file_that_is_cut_short_is_named(write, lists):
    path = lists / "guesswhat.valid.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"guesswhat\.valid\.jsonl\.gz cannot be decompressed .*: fetch it again"):
        write("guesswhat", lists)
