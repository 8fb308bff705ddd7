"""Plans, groups and files keep their order and content on disk."""

import pytest

from write_arrow.machine.plans import Files, Groups, Plans, Scratch
from write_arrow.machine.storage import StoredFile


@pytest.fixture
def scratch():
    return Scratch()


def test_groups_keep_the_order_of_keys_and_values(scratch):
    groups = Groups(scratch)
    for key, value in [("b", 1), ("a", [2, "é"]), ("b", None), ("c", 3), ("b", 4)]:
        groups.add(key, value)
    assert list(groups) == [("b", [1, None, 4]), ("a", [[2, "é"]]), ("c", [3])]
    assert groups["b"] == [1, None, 4]
    assert groups["none"] == []
    assert groups.num_values == 5


def test_groups_can_be_asked_while_they_are_read(scratch):
    groups = Groups(scratch)
    for number in range(3000):
        groups.add(number % 1000, number)
    assert all(groups[key] == values == [key, key + 1000, key + 2000] for key, values in groups)


def test_files_by_path_and_name(scratch):
    files = Files(scratch, [StoredFile("b/x.jpg", 1, "v"), StoredFile("a/x.jpg", 2, "w"), StoredFile("y.jpg")])
    assert files.get("a/x.jpg") == StoredFile("a/x.jpg", 2, "w")
    assert files.get("x.jpg") is None
    assert [file.path for file in files.named("x.jpg")] == ["a/x.jpg", "b/x.jpg"]
    assert [file.path for file in files] == ["a/x.jpg", "b/x.jpg", "y.jpg"]
    assert files.num_files == 3


def _plans(scratch, count=10, version="v"):
    plans = Plans(scratch)
    for number in range(count):
        plans.append([StoredFile(f"{number}.jpg", number, version)], caption=[f"text {number}"], image_id=number)
    return plans


def _ids(plans, start=0, stop=100):
    return [plan.values["image_id"] for plan in plans.read(start, stop)]


def test_plans_in_order(scratch):
    plans = _plans(scratch)
    (plan,) = plans.read(3, 4)
    assert plan.images == (StoredFile("3.jpg", 3, "v"),)
    assert plan.values == {"caption": ["text 3"], "image_id": 3}
    assert _ids(plans) == list(range(10))
    assert _ids(plans, 8, 12) == [8, 9]


def test_plans_shuffled_by_seed_and_limited(scratch):
    plans = _plans(scratch)
    plans.shuffle(5)
    first = _ids(plans)
    plans.shuffle(5)
    assert _ids(plans) == first != list(range(10))
    assert sorted(first) == list(range(10))
    plans.limit(4)
    assert len(plans) == 4
    assert _ids(plans) == first[:4]
    plans.shuffle(None)  # leaves the order


def test_the_digest_tells_order_content_and_files(scratch):
    digests = [
        _plans(scratch).digest(0, 10),
        _plans(scratch, 9).digest(0, 9),
        _plans(scratch, version="w").digest(0, 10),
    ]
    shuffled = _plans(scratch)
    shuffled.shuffle(1)
    digests.append(shuffled.digest(0, 10))
    assert len({digest.versions for digest in digests}) == 4
    assert len({digest.contents for digest in digests}) == 3  # a file's version is none of them
    assert _plans(scratch).digest(0, 10) == digests[0]
    assert _plans(scratch, version=None).digest(0, 10) == (None, digests[0].contents)
