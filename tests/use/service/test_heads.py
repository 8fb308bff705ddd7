"""The answers of heads over HTTP, against vlc.Model asked directly."""

import pytest

from tests import tiny
from tests.use.service.asking import asked, body, form, problem, served
from vlc.use.forms import Request

PNG, OTHER = (tiny.image_bytes(number, kind="PNG") for number in (0, 1))
PUBLISHED = form(fileupload=PNG, text_input="a dog")
BOX, ANOTHER = [1.0, 2.0, 12.0, 9.0], [20.0, 5.0, 39.0, 29.0]

# What each head is asked: at least one of each form.
CASES = {
    "mlm": {"images": [PNG], "text": "a [MASK] and a [MASK]"},
    "itm": {"images": [PNG], "text": "a dog"},
    "itc": {"images": [PNG], "text": "a dog"},
    "text_matching": {"images": [PNG], "text": "a dog", "second_text": "ein Hund"},
    "vqa": {"images": [PNG], "text": "what"},
    "nlvr2": {"images": [PNG, OTHER], "text": "two dogs"},
    "translation_retrieval": {"text": "a dog", "second_text": "ein Hund"},
    "visdial": {"images": [PNG], "text": "what", "options": ["a dog", "a cat"], "history": [["is it", "yes"]]},
    "vcr_qa": {"images": [PNG], "text": "is dog red", "options": ["yes", "the dog"], "named_boxes": {"dog": BOX}},
    "refer": {"images": [PNG], "text": "the dog", "boxes": [BOX, ANOTHER]},
    "refer_box": {"images": [PNG], "text": "the dog"},
    "guesswhat_oracle": {"images": [PNG], "text": "is it a dog", "boxes": [BOX]},
    "translator": {"images": [PNG], "text": "a dog", "language": "de"},
    "captioner": {"images": [PNG]},
    "mlt": {"images": [PNG], "text": "a dog runs", "word": "dog", "language": "de"},
}


@pytest.mark.parametrize("sent", [form, body])
def test_each_form_answers_as_the_model_does(model, sent):
    assert {type(model.forms[name]) for name in CASES} == {type(one) for one in model.forms.values()}

    async def work(client, _):
        return [(name, await client.post(f"/v1/{name}", **sent(**case))) for name, case in CASES.items()]

    for name, response in served(model, work):
        assert response.status_code == 200, (name, response.text)
        content = response.json()
        assert (content["task"], content["model"]) == (name, "all-heads")
        (result,) = content["results"]
        assert result["text"] == CASES[name].get("text")
        (expected,) = model.ask(name, [model.prepare(name, Request(**CASES[name]))])
        _check(result["answers"], expected)


def _check(given, expected):
    for answer, own in zip(given, expected, strict=True):
        assert (answer["about"], answer["unit"]) == (own.about, own.unit)
        assert [one["answer"] for one in answer["choices"]] == [name for name, _ in own.choices]
        values = [one["value"] for one in answer["choices"]]
        assert values == pytest.approx([value for _, value in own.choices], abs=1e-5)
        boxes = [one["box"] for one in answer["choices"] if one["box"] is not None]
        assert boxes == [pytest.approx(box) for box in own.boxes]


def test_several_texts(model):
    texts = ["what", "is it a dog", "where is the cat"]
    content = asked(model, "/v1/vqa", **form(images=[PNG], text=texts)).json()
    assert [one["text"] for one in content["results"]] == texts
    for one in content["results"]:
        _check(one["answers"], model.ask("vqa", [model.prepare("vqa", Request([PNG], one["text"]))])[0])


def test_the_published_client(model):
    response = asked(model, "/", **PUBLISHED)
    assert response.status_code == 200
    content = response.json()
    ((answer,),) = model.ask("snli_ve", [model.prepare("snli_ve", Request([PNG], "a dog"))])
    assert content["scores"] == pytest.approx(dict(answer.choices), abs=1e-6)
    assert set(content["scores"]) == {"contradiction", "neutral", "entailment"}
    assert sum(content["scores"].values()) == pytest.approx(1)
    assert content["label"] == answer.choices[0][0]
    assert (content["task"], content["text"], content["model"]) == ("snli_ve", "a dog", "all-heads")
    assert content["elapsed_ms"] > 0


def test_the_published_client_names_a_task_and_two_images(model):
    request = form(fileupload2=OTHER, text_input="two dogs", task="nlvr2", fileupload=PNG)  # in any order
    content = asked(model, "/", **request).json()
    ((answer,),) = model.ask("nlvr2", [model.prepare("nlvr2", Request([PNG, OTHER], "two dogs"))])
    assert content["scores"] == pytest.approx(dict(answer.choices), abs=1e-6)


@pytest.mark.parametrize(
    ("request_", "status", "field", "detail"),
    [
        (form(text_input="a dog"), 400, "fileupload", "fileupload: Field required"),
        (form(fileupload=PNG), 400, "text_input", "text_input: Field required"),
        (form(fileupload=PNG, text_input=""), 422, "text_input", "text_input: String should"),
        (form(fileupload=PNG, text_input=" \n"), 422, "text_input", "text_input: String should match"),
        (form(fileupload=PNG, text_input=["a", "b"]), 422, "text_input", "text_input is given more than once"),
        (form(fileupload="a path", text_input="a"), 422, "fileupload", "fileupload: files are wanted"),
        (form(fileupload=PNG, text_input="a", task="none"), 422, "task", "task: expected one of mlm, "),
        (form(fileupload=PNG, text_input="a", other="b"), 422, "other", "other: Extra inputs"),
        (form(fileupload=b"GIF87", text_input="a"), 415, "fileupload", "A file is no picture: JPEG, PNG"),
        (form(fileupload=PNG[:-60], text_input="a"), 400, "fileupload", "cannot be decoded"),
        ({"json": {"text_input": "a"}}, 415, None, "send multipart/form-data"),
        ({"data": {"text_input": "a"}}, 415, None, "send multipart/form-data"),
        ({"content": b"x"}, 415, None, "is missing and is not taken"),
    ],
)
def test_what_the_published_form_refuses(model, request_, status, field, detail):
    assert detail in problem(asked(model, "/", **request_), status, field)


ENCODED = body(images=[PNG])["json"]["images"]


@pytest.mark.parametrize(
    ("head", "request_", "status", "field", "detail"),
    [
        ("vqa", form(images=[PNG, PNG], text="a"), 422, "images", "at most 1 item"),
        ("nlvr2", form(images=[PNG], text="a"), 422, "images", "at least 2 items"),
        ("vqa", form(images=[PNG], text=["a"] * 65), 422, "text", "text: List should have at most 64 items"),
        ("vqa", form(images=[PNG], text="a" * 2001), 422, "text", "text: String should have at most 2000"),
        ("vqa", form(images=[PNG], text=PNG), 422, "text", "a text is wanted, and not a file"),
        ("vqa", form(images=[PNG] * 65, text="a"), 400, None, "Too many files: a form has 64 at most"),
        ("vqa", form(images=[PNG], text=["a"] * 257), 400, None, "Too many fields: a form has 256 at most"),
        ("translation_retrieval", form(text="a", second_text="b", images=[PNG]), 422, "images", "No picture"),
        ("refer", form(images=[PNG], text="a", boxes=[[1, 1, 0, 0]]), 422, "boxes", "is no box in a picture"),
        ("refer", form(images=[PNG], text="a", boxes=[[1, 1]]), 422, "boxes", "boxes.0: List should have at least 4"),
        ("refer", {"files": [("boxes", (None, "[[1,"))]}, 422, "boxes", "boxes is not JSON"),
        ("guesswhat_oracle", form(images=[PNG], text="a"), 400, "boxes", "boxes: Field required"),
        ("guesswhat_oracle", form(images=[PNG], text="a", boxes=[BOX, BOX]), 422, "boxes", "at most 1 item"),
        ("translator", form(images=[PNG], text="a", language="xx"), 422, "language", "'de', 'fr' or 'cs'"),
        ("translator", form(images=[PNG], text="a", language=["de", "fr"]), 422, "language", "more than once"),
        ("mlt", form(images=[PNG], text="a dog", word="cat", language="de"), 422, "word", "word='cat' is none"),
        ("visdial", form(images=[PNG], text="a"), 400, "options", "options: Field required"),
        ("mlm", form(images=[PNG], text="a dog"), 422, "text", "[MASK] stands for a word"),
        ("vqa", {"json": ["text"]}, 422, None, "The body: Input should be a valid dict"),
        ("vqa", {"json": {"images": ENCODED, "text": ["a", 3]}}, 422, "text", "text.1: Input should be a valid string"),
        ("vqa", {"json": {"images": ENCODED, "text": ""}}, 422, "text", "text: String should have at least"),
        ("vqa", {"json": {"images": ENCODED, "text": None}}, 422, "text", "text: Input should be a valid string"),
        ("vqa", {"json": {"images": ["?"], "text": "a"}}, 400, "images", "A picture is not base64"),
        ("vqa", {"json": {"images": "x", "text": "a"}}, 422, "images", "images: Input should be a valid list"),
        (
            "refer",
            {"json": {"images": ENCODED, "text": "a", "boxes": [[1, 2, 10**400, 4]]}},
            422,
            "boxes",
            "boxes.0.2: Input should be",
        ),
    ],
)
def test_what_heads_refuse(model, head, request_, status, field, detail):
    assert detail in problem(asked(model, f"/v1/{head}", **request_), status, field)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"text": "\\ud800"}', b'{"text": NaN,}'])
def test_bodies_that_are_no_json(model, content):
    response = asked(model, "/v1/vqa", content=content, headers={"content-type": "application/json"})
    assert "is not JSON" in problem(response, 400)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"--x\r\nx"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\na dog\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--\r\n',
        ),
    ],
)
def test_bodies_that_are_no_forms(model, kind, content):
    response = asked(model, "/v1/vqa", content=content, headers={"content-type": kind})
    assert response.status_code == 400
    problem(response, 400, response.json().get("field"))


@pytest.mark.parametrize("charset", ["punycode", "undefined", "\0", "utf-16"])
def test_texts_of_forms_are_utf_8(model, charset):
    content = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\na dog\r\n--x--\r\n'
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
    assert "are UTF-8" in problem(asked(model, "/v1/vqa", content=content, headers=headers), 415)


def test_several_checkpoints(model):
    models = {"one": model, "two": model}
    content = asked(models, "/v1/two/vqa", **form(images=[PNG], text="what")).json()
    assert content["model"] == "two"
    assert asked(models, "/v1/vqa", **form(images=[PNG], text="what")).json()["model"] == "one"
    assert asked(models, "/", **form(fileupload=PNG, text_input="a", task="two/vqa")).json()["model"] == "two"
