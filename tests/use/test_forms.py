"""Forms: each head says which inputs it takes, and requests in one batch get the answers that they get alone."""

from dataclasses import replace

import pytest

from tests import tiny
from vlc.common.errors import UserError
from vlc.training.run import run
from vlc.use.forms import Request
from vlc.use.model import Model

TASKS = ["vqa", "nlvr2", "visdial", "refcoco", "guesswhat_oracle"]
IMAGES = [tiny.image_bytes(number, kind="PNG") for number in range(3)]
REQUESTS = {
    "vqa": [Request([image], text) for image, text in zip(IMAGES, ("a dog", "what is it", "two"), strict=True)],
    "nlvr2": [Request(IMAGES[:2], "two dogs"), Request(IMAGES[1:], "a dog and a cat sit")],
    "visdial": [
        Request([IMAGES[0]], "is it", options=["yes", "no", "it may be"], history=[("what", "a dog")]),
        Request([IMAGES[1]], "who", options=["a dog", "no", "two"], caption="a dog"),
        Request([IMAGES[1]], "who", options=["a dog", "no"]),
    ],
    "refer": [Request([IMAGES[0]], "the dog", boxes=[(0, 0, 20, 20), (10, 5, 30, 30)]), Request([IMAGES[1]], "a cat")],
}


@pytest.fixture(scope="module")
def model(arrows, tmp_path_factory) -> Model:
    """A checkpoint with heads of several forms."""
    options = {"data_root": str(arrows), "log_dir": str(tmp_path_factory.mktemp("log")), "vit": "mae_vit_tiny_patch16"}
    log_dir = run(
        tiny.settings(
            "task_12in1",
            tasks=TASKS,
            **{f"{name}.batch_size": 4 for name in TASKS},
            **{"clean.exclude": "none"},
            **options,
        )
    )["log_dir"]
    return Model.from_checkpoint(f"{log_dir}/checkpoints/last.ckpt", num_gpus=0)


def test_the_fields_of_heads(model):
    fields = {name: form.fields(model, model.module.objectives[name]) for name, form in model.forms.items()}
    required = {name: {field for field, said in own.items() if said.required} for name, own in fields.items()}
    assert required == {
        "vqa": {"images", "text"},
        "nlvr2": {"images", "text"},
        "visdial": {"images", "text", "options"},
        "refer": {"images", "text"},
        "guesswhat_oracle": {"images", "text", "boxes"},
    }
    assert [fields[name]["images"].count for name in ("vqa", "nlvr2")] == [1, 2]
    assert "boxes" in fields["refer"]
    assert {"history", "caption"} <= set(fields["visdial"])


@pytest.mark.parametrize("head", REQUESTS)
def test_a_batch_is_its_requests_alone(model, head):
    prepared = [model.prepare(head, request) for request in REQUESTS[head]]
    together = model.ask(head, prepared)
    for one, answers in zip(prepared, together, strict=True):
        ((alone,),) = model.ask(head, [one])
        (answer,) = answers
        assert [choice for choice, _ in answer.choices] == [choice for choice, _ in alone.choices]
        assert [value for _, value in answer.choices] == pytest.approx([value for _, value in alone.choices], abs=1e-5)
        assert answer.head == head
    assert [answer.example for answers in together for answer in answers] == list(range(len(prepared)))


def test_shapes_part_what_cannot_stand_together(model):
    three, two = (model.prepare("visdial", REQUESTS["visdial"][number]).shape for number in (1, 2))
    assert three != two
    assert model.prepare("visdial", REQUESTS["visdial"][0]).shape == three


@pytest.mark.parametrize(
    ("head", "changed", "message"),
    [
        ("vqa", {"images": IMAGES}, "images: 3 are given, and 1 wanted"),
        ("nlvr2", {"images": IMAGES[:1]}, "images: 1 are given, and 2 wanted"),
        ("vqa", {"images": [b"no image"]}, "cannot be decoded"),
        ("visdial", {"options": ()}, "options are missing"),
        ("vqa", {"boxes": [(0, 0, 9, 9)]}, "none of which reads boxes"),
        ("refer", {"boxes": [(9, 9, 3, 3)]}, "is no box in a picture of 40x30 pixels"),
    ],
)
def test_wrong_requests_are_refused(model, head, changed, message):
    with pytest.raises(UserError, match=message):
        model.prepare(head, replace(REQUESTS[head][0], **changed))
