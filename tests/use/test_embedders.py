"""The forms of CLIP_benchmark and of mteb: the embeddings are those of vlc.Model, and the packages accept them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.recipes import loss_weights
from vlc.use.embedders import ClipModel, MTEBEncoder, load_clip, register_clip_benchmark
from vlc.use.model import Model
from vlc.use.probe.zero_shot import ZeroShot, prompts

TEXTS = ["a dog", "two red cats and a bus left of the house", "a tree"]


@pytest.fixture(scope="module")
def made(arrows, tmp_path_factory) -> dict[str, str]:
    recipe = "task_finetune_irtr_coco_mae_randaug"
    heads = {name: (recipe, {"loss_names": loss_weights(**{name: 1})}) for name in ("itc", "irtr")}
    return tiny.untrained(arrows, tmp_path_factory.mktemp("made"), heads)


@pytest.fixture(scope="module")
def model(made) -> Model:
    return Model.from_checkpoint(made["itc"], num_gpus=0, per_gpu_batchsize=2)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)) for _ in range(3)]


def test_clip_benchmark_gets_the_embeddings(made, model, pictures):
    network, transform, tokenizer = load_clip("vlc", made["itc"], device="cpu")
    images = torch.stack([transform(picture) for picture in pictures])
    torch.testing.assert_close(network.encode_image(images), torch.from_numpy(model.embed(images=pictures)))
    ids = tokenizer(TEXTS)
    assert ids.dtype == torch.int64
    torch.testing.assert_close(network.encode_text(ids), torch.from_numpy(model.embed(texts=TEXTS)))
    with pytest.raises(UserError, match="none of objective itc"):
        ClipModel(Model.from_checkpoint(made["irtr"], num_gpus=0))


def test_mteb_gets_the_embeddings(model, pictures):
    encoder = MTEBEncoder(model)
    batches = [{"text": TEXTS[:2], "image": pictures[:2]}, {"text": TEXTS[2:], "image": pictures[2:]}]
    texts, images = encoder.get_text_embeddings(batches), encoder.get_image_embeddings(batches)
    np.testing.assert_allclose(texts, model.embed(texts=TEXTS), atol=1e-6)
    np.testing.assert_allclose(images, model.embed(images=pictures), atol=1e-6)
    both = encoder.encode(batches, task_metadata=None, hf_split="test", hf_subset="default")
    np.testing.assert_allclose(np.linalg.norm(both, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(both, (texts + images) / np.linalg.norm(texts + images, axis=1, keepdims=True))
    np.testing.assert_allclose(encoder.encode([{"text": TEXTS}]), texts, atol=1e-6)
    cosines = encoder.similarity(texts, images)
    torch.testing.assert_close(encoder.similarity_pairwise(texts, images), cosines.diagonal())


def test_clip_benchmark_itself(made, model, pictures):
    models = pytest.importorskip("clip_benchmark.models")
    from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

    register_clip_benchmark()
    network, transform, tokenizer = models.load_clip("vlc", "any", made["itc"], None, "cpu")

    images = [transform(picture) for picture in pictures]
    options = {"device": "cpu", "amp": False}
    classes = zeroshot_classification.zero_shot_classifier(network, tokenizer, TEXTS, ["{c}", "the {c}"], **options)
    loader = DataLoader(list(zip(images, range(len(images)), strict=True)), batch_size=2)
    logits, _ = zeroshot_classification.run_classification(network, classes, loader, **options)
    own = ZeroShot(model, prompts(TEXTS, ["{}", "the {}"])).scores(images)
    torch.testing.assert_close(logits, 100 * own, atol=1e-3, rtol=0)
    retrieved = DataLoader(
        [(image, [text]) for image, text in zip(images, TEXTS, strict=True)],
        batch_size=2,
        collate_fn=lambda rows: (torch.stack([row[0] for row in rows]), [row[1] for row in rows]),
    )
    recalls = zeroshot_retrieval.evaluate(network, retrieved, tokenizer, recall_k_list=[3], **options)
    assert recalls == {"image_retrieval_recall@3": 1, "text_retrieval_recall@3": 1}


def test_mteb_itself(model):
    """mteb's own check of a model: made-up tasks of every kind on texts and images."""
    mteb = pytest.importorskip("mteb")
    found = mteb.mock_run(MTEBEncoder(model)).task_results
    done = {name: result for name, result in found.items() if result is not None}
    assert {"MockZeroShotClassification", "MockAny2AnyRetrievalT2I", "MockRetrievalTask"} <= done.keys()
    assert not [name for name, result in done.items() if hasattr(result, "exception")]
