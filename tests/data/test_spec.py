"""Columns of the catalogue."""

import numpy as np

from vlc.data.catalog import CATALOG
from vlc.data.kinds import padded_floats, padded_integers


def test_collating():
    np.testing.assert_array_equal(padded_integers([[4], [], [5, 6]]), [[4, 0], [0, 0], [5, 6]])
    padded = padded_floats([[0.3], [1.0, 0.6]])
    assert padded.dtype == np.float32
    np.testing.assert_allclose(padded, [[0.3, 0], [1, 0.6]], rtol=1e-6)
    assert padded_integers([[], []]).shape == (2, 0)


def test_every_row_of_the_catalogue_evaluates_splits_that_it_has():
    for name, spec in CATALOG.items():
        assert {*spec.validation, *spec.test} <= set(spec.tables), name
        assert set(spec.published) <= set(spec.tables), name
        assert spec.unlabelled <= set(spec.tables), name


def test_the_checkpoint_is_selected_on_what_is_validated_or_as_published():
    assert CATALOG["nlvr2"].selecting() == ("dev",)
    assert CATALOG["nlvr2"].selecting(published=True) == ("test1",)
    assert CATALOG["coco"].selecting(published=True) == ("val",)


def test_published_splits_replace_ours():
    assert CATALOG["coco"].splits()["val"] == ("coco_caption_karpathy_val",)
    assert CATALOG["coco"].splits(published=True)["val"] == ("coco_caption_karpathy_test",)
