"""Splits without a leak: examples that share a picture, directly or through others, stay in one split."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from vlc.common.errors import UserError
from vlc.workflows.fit.items import SPLITS, Item
from vlc.workflows.fit.pictures import Picture


def with_splits(
    items: Sequence[Item], pictures: Mapping[str, Picture], shares: Sequence[float], seed: int
) -> tuple[list[Item], list[str]]:
    """Return the examples, each with a split, and lines that say how they were divided.

    Examples that the table gives a split keep it, and other splits are taken from the training examples, or from those
    without a split. The same pictures and seed are divided in the same way, whatever the order of the rows.

    shares: of training, validation and test.
    Raises UserError where a split would be empty.
    """
    groups = _groups(items, pictures)
    splits = [item.split for item in items]
    for members in groups:  # an example without a split belongs to those that show the same picture
        own = next((splits[number] for number in members if splits[number]), "")
        for number in members:
            splits[number] = splits[number] or own
    missing = [split for split in SPLITS if split not in splits]
    free = [members for members in groups if all(splits[number] in ("", "train") for number in members)]
    wanted = {split: share for split, share in zip(SPLITS, shares, strict=True) if split in missing}
    _divide(splits, _shuffled(free, items, pictures, seed), wanted)
    counts = Counter(splits)
    if empty := [split for split in SPLITS if not counts[split]]:
        raise UserError(
            f"There is no example for {' and '.join(empty)}: {len(items):,} examples show {len(groups):,} pictures or sets "
            "of pictures, and each split needs one of its own at least. Add rows, or a column split"
        )
    sizes = ", ".join(f"{split} {counts[split]:,}" for split in SPLITS)
    said = [f"{sizes} examples; those that share a picture stay together, in {len(groups):,} groups"]
    if leak := _leak(items, splits, pictures):
        said.append(leak)
    return [replace(item, split=split) for item, split in zip(items, splits, strict=True)], said


def _groups(items: Sequence[Item], pictures: Mapping[str, Picture]) -> list[list[int]]:
    """The numbers of examples that belong together."""
    of_picture: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        for image in item.images:
            of_picture[pictures[image].key].append(number)
    parents = list(range(len(items)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    for members in of_picture.values():
        for one, other in pairwise(members):
            parents[root(other)] = root(one)
    groups: dict[int, list[int]] = defaultdict(list)
    for number in range(len(items)):
        groups[root(number)].append(number)
    return list(groups.values())


def _shuffled(
    groups: list[list[int]], items: Sequence[Item], pictures: Mapping[str, Picture], seed: int
) -> list[list[int]]:
    """The groups in an order that pictures and seed alone decide."""

    def place(members: list[int]) -> str:
        key = min(pictures[image].key for number in members for image in items[number].images)
        return hashlib.sha256(f"{seed} {key}".encode()).hexdigest()

    return sorted(groups, key=place)


def _divide(splits: list[str], groups: list[list[int]], shares: Mapping[str, float]) -> None:
    """Give groups to the splits that are to be filled, test and validation first; the rest is for training.

    shares: of the splits that are to be filled. Each gets a group at least, as long as one is left for training.
    """
    total = sum(map(len, groups))
    for split in ("test", "val"):
        if split not in shares:
            continue
        goal, taken, left = max(1, round(shares[split] * total)), 0, list[list[int]]()
        for group in groups:
            if taken + len(group) <= goal:
                taken += len(group)
                _give(splits, group, split)
            else:
                left.append(group)
        if not taken and len(left) > 1:
            smallest = min(left, key=len)
            left.remove(smallest)
            _give(splits, smallest, split)
        groups = left
    for group in groups:
        _give(splits, group, "train")


def _give(splits: list[str], group: list[int], split: str) -> None:
    for number in group:
        splits[number] = split


def _leak(items: Sequence[Item], splits: Sequence[str], pictures: Mapping[str, Picture]) -> str:
    """A line about pictures of training that a given split of validation or test shows too; empty where there are none."""
    divided = list(zip(items, splits, strict=True))
    trained = {pictures[image].key for item, split in divided if split == "train" for image in item.images}
    shared = {
        image for item, split in divided if split != "train" for image in item.images if pictures[image].key in trained
    }
    if not shared:
        return ""
    return (
        f"{len(shared):,} images of validation or test are pictures of training too, such as {min(shared)}: what is "
        "measured on them says little. Without the column of splits the examples are divided by pictures"
    )
