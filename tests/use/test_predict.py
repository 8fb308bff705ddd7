"""predict: what every head says of an image and a text, and how it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny
from tests.warm import command
from vlc.checkpoint import weights
from vlc.common.errors import MissingFile, NonFiniteMetric, UserError
from vlc.configuration.config import resolve_use
from vlc.configuration.recipes import loss_weights
from vlc.data.keys import Key
from vlc.data.tokens import load_tokenizer
from vlc.training.run import build_data, build_module
from vlc.use.model import Model
from vlc.use.predict import predict

VIT = "mae_vit_tiny_patch16"
TRAINED = {
    "captions": (
        "task_finetune_irtr_coco_mae_randaug",
        {"loss_names": loss_weights(mlm=1, mae=1, itm=1, irtr=1, itc=1)},
    ),
    "vqa": ("task_finetune_vqa_mae_randaug", {"vqav2_label_size": 3}),
    "nlvr2": ("task_finetune_nlvr2_mae_randaug", {}),
    "refcoco": ("task_finetune_refcoco", {"tasks": ["refcoco", "refcoco_box"]}),
    "guesswhat_oracle": ("task_finetune_guesswhat_oracle", {}),
}
TRAINED["captions"][1].update(is_pretrain=True, draw_false_image=1, draw_false_text=2, mlm_prob=0.5)


@pytest.fixture(scope="module")
def trained(arrows, tmp_path_factory) -> dict[str, str]:
    """A checkpoint with the heads of captions, one with that of questions, one with that of pairs."""
    return tiny.checkpoints(arrows, tmp_path_factory.mktemp("trained"), TRAINED)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Two images, without loss."""
    folder = tmp_path_factory.mktemp("files")
    for number in (0, 1):
        (folder / f"{number}.png").write_bytes(tiny.image_bytes(number, kind="PNG"))
    return [str(folder / "0.png"), str(folder / "1.png")]


def _ask(path: str, **values) -> list[dict]:
    values = {"num_gpus": 0, "load_path": path, **values}
    return predict(*resolve_use(**values))


def test_every_head_of_captions_replies(trained, files):
    records = _ask(trained["captions"], image=files[0], text=["a [MASK] of [MASK]", "a dog"])
    said = [(record["task"], record["about"], record["text"]) for record in records]
    masked = "a [MASK] of [MASK]"
    assert sorted(said) == sorted(
        [("mlm", "[MASK] 1", masked), ("mlm", "[MASK] 2", masked)]
        + [(task, "", text) for task in ("itm", "irtr", "itc") for text in (masked, "a dog")]
    )
    for record in records:
        values = [value for _, value in record["answers"]]
        assert values == sorted(values, reverse=True)
        assert len(values) == (5 if record["task"] == "mlm" else 1)
        assert record["unit"] != "probability" or 0 < sum(values) <= 1


def test_a_question_gets_the_answers_that_testing_gives(trained, arrows, tmp_path):
    """The image and text of a sample of the data, once through the loader and once by hand."""
    recipe, values = TRAINED["vqa"]
    settings = tiny.settings(recipe, data_root=str(arrows), vit=VIT, test_only=True, load_path=trained["vqa"], **values)
    data = build_data(settings)
    module = build_module(settings, data).eval()
    test = data.evaluation["test"]
    source, where = test.locate(3)
    file = tmp_path / "asked.jpg"
    file.write_bytes(source.image(where, "image").to_pybytes())
    (record,) = _ask(trained["vqa"], image=str(file), text=source.text(where))
    with torch.no_grad():
        batch = module.normalised(test[[Key(0, 3)]])
        probabilities = module.outcomes(batch)["vqa"].logits[0].sigmoid()
    assert [value for _, value in record["answers"]] == pytest.approx(probabilities.sort(descending=True)[0].tolist())
    assert record["answers"][0][0] == ("yes", "yes", "no")[probabilities.argmax()]


def test_two_images(trained, files):
    (record,) = _ask(trained["nlvr2"], image=files[0], image2=files[1], text="two dogs")
    assert {answer for answer, _ in record["answers"]} == {"True", "False"}
    assert sum(value for _, value in record["answers"]) == pytest.approx(1)
    (swapped,) = _ask(trained["nlvr2"], image=files[1], image2=files[0], text="two dogs")
    assert swapped["answers"] != record["answers"]


def test_a_reconstruction_keeps_what_was_seen(trained, files, tmp_path):
    out = tmp_path / "made" / "picture.png"
    assert _ask(trained["captions"], image=files[0], picture=str(out)) == []
    with Image.open(out) as picture:
        assert picture.size == (3 * 32, 32)
        pixels = torch.from_numpy(np.array(picture)).view(32, 3, 32, 3).transpose(0, 1)  # three pictures
    patches = pixels.view(3, 2, 16, 2, 16, 3)
    seen = [(row, column) for row in (0, 1) for column in (0, 1) if (patches[0] == patches[1])[row, :, column].all()]
    assert len(seen) == 1, "of four patches, three quarters are dropped"
    (row, column) = seen[0]
    assert torch.equal(patches[2, row, :, column], patches[0, row, :, column])
    assert not torch.equal(patches[2], patches[0])


def test_loss_names_choose_among_the_heads(trained, files):
    (record,) = _ask(trained["captions"], image=files[0], text="a dog", loss_names=loss_weights(itm=1))
    assert record["task"] == "itm"


def test_a_file_of_results(trained, files, tmp_path):
    records = _ask(trained["vqa"], image=files[0], text="what", out=str(tmp_path / "out.json"))
    assert json.loads((tmp_path / "out.json").read_text())[0]["answers"] == [list(a) for a in records[0]["answers"]]


def test_a_published_file_is_told_what_it_is_by_the_configuration(trained, files, arrows, tmp_path):
    """The published layout holds no configuration and no answers."""
    saved = tmp_path / "released.ckpt"
    weights.export(weights.read(trained["vqa"]), saved, "vlc_release")
    content = torch.load(saved, weights_only=True)
    del content["vlc"]
    torch.save(content, saved)
    asked = {"image": files[0], "text": "what is it", "vit": VIT, "image_size": 32, "tokenizer": "emoji"}
    asked |= {"vocab_size": None, "max_text_len": 16, "vqav2_label_size": 3}
    with pytest.raises(UserError, match=r"does not hold the answers of its labels: pass data_root="):
        _ask(str(saved), **asked)
    told = _ask(str(saved), **asked, data_root=str(arrows), datasets=["vqa"])
    assert told == _ask(trained["vqa"], image=files[0], text="what is it")
    with pytest.raises(UserError, match=r"lacks .* Check vit"):
        _ask(str(saved), **(asked | {"vit": "mae_vit_base_patch16"}), data_root=str(arrows), datasets=["vqa"])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("vqa", {"text": "what"}, "image=FILE is missing"),
        ("vqa", {"image": 0}, "There is nothing to answer"),
        ("vqa", {"image": 0, "image2": 1, "text": "what"}, "heads vqa, which take one image"),
        ("nlvr2", {"image": 0, "text": "what"}, "heads nlvr2, which take a second image"),
        ("vqa", {"image": 0, "picture": "x.png"}, "has no mae head"),
        ("captions", {"image": 0, "picture": "x.abc"}, r"picture=x\.abc is of no kind that is written here"),
        ("captions", {"image": 0, "picture": "tests"}, "picture=tests is a folder: name a file"),
        (
            "captions",
            {"image": 0, "picture": "README.md/x.png"},
            "picture=README.md/x.png cannot be written: Not a dir",
        ),
        ("vqa", {"image": 0, "text": "what", "out": "tests"}, "out=tests is a folder: name a file"),
        ("vqa", {"image": 0, "text": "what", "out": "README.md/x"}, "out=README.md/x cannot be written: Not a dir"),
        ("vqa", {"image": 0, "text": 3}, "expected a text, or a list of texts; for the text 3 write 'text=\"3\"'"),
        ("vqa", {"image": 0, "text": ""}, "text='' holds a text without words"),
        ("vqa", {"image": 0, "text": ["what", " "]}, "holds a text without words"),
        ("vqa", {"image": 5, "text": "what"}, "image=5 is not valid: expected a text, or None; for the text 5"),
        ("vqa", {"image": ["a.png"], "text": "what"}, "is not valid: expected a text"),
        ("vqa", {"image": "tests", "text": "what"}, "Image tests is a folder: name a file"),
        ("", {"image": 0, "text": "what"}, "load_path=CHECKPOINT is missing"),
    ],
)
def test_what_cannot_be_answered_is_refused(trained, files, name, values, message):
    values = {key: files[value] if value in (0, 1) else value for key, value in values.items()}
    with pytest.raises(UserError, match=message):
        _ask(trained.get(name, ""), **values)


def test_a_text_without_a_word_to_fill_in(trained, files):
    chosen = {"loss_names": loss_weights(mlm=1)}
    with pytest.raises(UserError, match=r"heads mlm, which say nothing of this text: pass .*\[MASK\]"):
        _ask(trained["captions"], image=files[0], text="a dog", **chosen)


def test_bad_images_are_named(trained, files, tmp_path):
    with pytest.raises(MissingFile, match=r"Image nowhere\.png does not exist"):
        _ask(trained["vqa"], image="nowhere.png", text="what")
    (tmp_path / "bad.jpg").write_bytes(tiny.image_bytes()[:100])
    with pytest.raises(UserError, match=r"bad\.jpg cannot be decoded"):
        _ask(trained["vqa"], image=str(tmp_path / "bad.jpg"), text="what")


def test_without_a_head_nothing_is_answered(trained, files, tmp_path):
    found = weights.read(trained["vqa"])
    bare = {name: value for name, value in found.state.items() if not name.startswith("objectives.")}
    torch.save({"state_dict": bare, "vlc": found.extras}, tmp_path / "bare.ckpt")
    with pytest.raises(UserError, match="has no head for any of"):
        _ask(str(tmp_path / "bare.ckpt"), image=files[0], text="what")


def test_checkpoints_of_before_a_key_existed_open(trained, files, tmp_path):
    content = torch.load(trained["vqa"], weights_only=True)
    del content["vlc"]["config"]["wpa_weight"], content["vlc"]["preprocessing"], content["vlc"]["tokenizer"]
    content["vlc"]["config"]["forgotten"] = 1
    torch.save(content, tmp_path / "old.ckpt")
    assert Model.from_checkpoint(tmp_path / "old.ckpt", num_gpus=0).device.type == "cpu"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_size", 10**6, r"configuration says image_size=1000000, its weights 32"),
        ("max_text_len", 10**9, r"configuration says max_text_len=1000000000, its weights 16"),
        ("vqav2_label_size", 10**9, r"configuration says vqav2_label_size=1000000000, its weights 3"),
        ("image_size", "x", "image_size"),
        ("vit", ["x"], "vit"),
        ("tokenizer", 3, "tokenizer"),
        ("tokenizer", "evil/code", "made with tokenizer='evil/code'.*pass tokenizer="),
    ],
)
def test_configurations_that_do_not_fit_the_weights(trained, tmp_path, monkeypatch, key, value, message):
    """Nothing is allocated for them, and no hub is asked."""
    monkeypatch.setattr("vlc.data.tokens.urlopen", lambda *_, **__: pytest.fail("asked the hub"))
    content = torch.load(trained["vqa"], weights_only=True)
    content["vlc"]["config"][key] = value
    del content["vlc"]["tokenizer"]  # older checkpoints only name it
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=message):
        Model.from_checkpoint(tmp_path / "x.ckpt", num_gpus=0)


def test_code_beside_a_stored_tokenizer_is_not_run(trained, files, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run it"))
    load_tokenizer("emoji").save_pretrained(tmp_path / "tokenizer")
    ran, path = tmp_path / "ran", tmp_path / "tokenizer/tokenizer_config.json"
    (tmp_path / "tokenizer/code.py").write_text(f"open({str(ran)!r}, 'w')")
    config = {"auto_map": {"AutoTokenizer": ["code.Evil", "code.Evil"]}, "tokenizer_class": "Evil"}
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    content = torch.load(trained["vqa"], weights_only=True)
    content["vlc"]["config"]["tokenizer"] = str(tmp_path / "tokenizer")
    del content["vlc"]["tokenizer"]  # older checkpoints only name it
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="no tokenizer can be read from this folder"):
        _ask(str(tmp_path / "x.ckpt"), image=files[0], text="what")
    assert not ran.exists()
    assert _ask(str(tmp_path / "x.ckpt"), image=files[0], text="what", tokenizer="emoji")


@pytest.mark.parametrize(
    ("name", "head"),
    [("captions", head) for head in ("mlm", "itm", "irtr", "itc", "mae")] + [("vqa", "vqa"), ("nlvr2", "nlvr2")],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_head_answers_with_values_that_are_not_finite(trained, files, tmp_path, name, head, value):
    content = torch.load(trained[name], weights_only=True)
    for key, tensor in content["state_dict"].items():
        if key.startswith(f"objectives.{head}.") and tensor.is_floating_point():
            tensor.fill_(value)
    torch.save(content, tmp_path / "x.ckpt")
    asked = {"picture": str(tmp_path / "x.png")} if head == "mae" else {"text": "a [MASK]"}
    asked |= {"image2": files[1]} if head == "nlvr2" else {"draw_false_text": 2} if head == "irtr" else {}
    with pytest.raises(NonFiniteMetric, match=f"NaN or infinite: the .* of {head}"):
        _ask(str(tmp_path / "x.ckpt"), image=files[0], loss_names=loss_weights(**{head: 1}), **asked)


def test_the_command_line(trained, files):
    words = ["predict", "with", f"load_path={trained['vqa']}", f"image={files[0]}", "text=what is it", "num_gpus=0"]
    done = command("run.py", *words)
    assert done.returncode == 0, done.stderr
    assert "what is it" in done.stdout
    assert "yes" in done.stdout
    words[2] = f"load_path={Path(trained['vqa']).with_name('none.ckpt')}"
    done = command("run.py", *words)
    assert done.returncode != 0
    assert "none.ckpt does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_pointing_and_regress_give_boxes_of_the_picture_and_draw_them(trained, files, tmp_path):
    drawn, boxes = tmp_path / "drawn.png", [1, 2, 12, 9, 20, 5, 39, 29]
    texts = ["the red dog", "the cat"]
    records = _ask(trained["refcoco"], image=files[0], text=texts, boxes=boxes, picture=str(drawn))
    assert [(record["task"], record["text"]) for record in records] == [
        (task, text) for text in texts for task in ("refer", "refer_box")
    ]
    chosen = records[0]
    assert sorted(chosen["boxes"]) == [tuple(boxes[:4]), tuple(boxes[4:])]
    assert {name for name, _ in chosen["answers"]} == {"[1, 2, 12, 9]", "[20, 5, 39, 29]"}
    assert sum(value for _, value in chosen["answers"]) == pytest.approx(1, abs=1e-5)
    ((left, _, right, _),) = records[1]["boxes"]
    assert -20 <= left < right <= 60
    picture = Image.open(drawn)
    assert picture.size == (40, 30)
    assert picture.tobytes() != Image.open(files[0]).tobytes()
    assert all(
        len(record["boxes"]) == len(record["answers"]) for record in _ask(trained["refcoco"], image=files[0], text="a")
    )


@pytest.mark.parametrize(
    ("name", "boxes", "message"),
    [
        ("refcoco", [30, 2, 12, 9], r"\[30, 2, 12, 9\] is no box in a picture of 40x30 pixels"),
        ("refcoco", [41, 2, 45, 9], "is no box in a picture of 40x30 pixels"),
        ("refcoco", [1, 2, 3], r"boxes=\[1, 2, 3\] is not valid: expected four numbers for each box"),
        ("vqa", [1, 2, 12, 9], "has the heads vqa, none of which reads boxes"),
    ],
)
def test_boxes_that_are_none_or_that_nobody_reads(trained, files, name, boxes, message):
    with pytest.raises(UserError, match=message):
        _ask(trained[name], image=files[0], text="the dog", boxes=boxes)


def test_an_answer_about_a_box_needs_the_box(trained, files):
    asked = {"image": files[0], "text": "is it red?"}
    (record,) = _ask(trained["guesswhat_oracle"], **asked, boxes=[1, 2, 12, 9])
    assert {name for name, _ in record["answers"]} == {"Yes", "No", "N/A"}
    (other,) = _ask(trained["guesswhat_oracle"], **asked, boxes=[20, 5, 39, 29, 1, 2, 12, 9])
    assert dict(record["answers"]) != dict(other["answers"])
    with pytest.raises(UserError, match=r"say nothing of this text without the box .* pass boxes=\[LEFT,TOP"):
        _ask(trained["guesswhat_oracle"], **asked)
