"""Beside the heads: what there is, embeddings, search and explanations."""

import asyncio
import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.use.service.asking import asked, body, form, problem, served
from vlc.common.errors import UserError
from vlc.use.explain import METHODS, explain
from vlc.use.forms import Request

PNG, OTHER = (tiny.image_bytes(number, kind="PNG") for number in (0, 1))


def test_heads_say_what_they_take(model):
    content = asked(model, "/v1/heads", "GET").json()
    heads = {head["path"]: head for head in content["heads"]}
    assert set(heads) == {f"/v1/{name}" for name in model.forms}
    pair = heads["/v1/nlvr2"]["fields"]["images"]
    assert (pair["required"], pair["count"]) == (True, 2)
    assert heads["/v1/translator"]["fields"]["language"]["choices"] == ["de", "fr", "cs"]
    assert (content["embed"], content["search"], set(content["explain"])) == (True, [], set(METHODS))


def test_embeddings(model):
    texts = ["a dog", "two cats"]
    content = asked(model, "/v1/embed", **form(images=[PNG, OTHER], text=texts)).json()
    np.testing.assert_allclose(content["images"], model.embed(images=[PNG, OTHER]), atol=1e-5)
    np.testing.assert_allclose(content["texts"], model.embed(texts=texts), atol=1e-5)
    content = asked(model, "/v1/embed", **body(text="a dog")).json()
    assert (len(content["texts"]), content["images"]) == (1, [])
    problem(asked(model, "/v1/embed", **body()), 400, "text")
    problem(asked(model, "/v1/embed", **form(images=[PNG[:-60]])), 400, "images")


def test_search(model, index):
    async def work(client, _):
        return (
            await client.post("/v1/search", **form(text="a dog", num_results=2)),
            await client.post("/v1/search", **body(text="a dog")),
            await client.get("/v1/search/images/1"),
            await client.get("/v1/search/images/3"),
            await client.get("/v1/search/images/x"),
            await client.post("/v1/search", **body()),
            await client.post("/v1/search", **form(text="a dog", num_results=1000)),
            await client.post("/v1/search", **form(images=[PNG])),
        )

    two, three, image, none, wrong, empty, many, by_image = served(model, work, index)
    content = two.json()
    assert content["kind"] == "images"
    assert content["results"] == three.json()["results"][:2]
    scores = [one["score"] for one in three.json()["results"]]
    assert scores == sorted(scores, reverse=True)
    assert {(one["number"], one["source"]) for one in three.json()["results"]} == {(n, f"{n}.png") for n in range(3)}
    assert Image.open(io.BytesIO(image.content)).size == (40, 30)
    assert image.headers["content-type"] == "image/jpeg"
    problem(none, 404, "number")
    problem(wrong, 422, "number")
    problem(empty, 400, "text")
    problem(many, 422, "num_results")
    problem(by_image, 422, "images")


def test_pictures_that_have_gone_are_told(model, index):
    async def work(client, _):
        (Path(index).parent / "2.png").rename(Path(index).parent / "gone")
        response = await client.get("/v1/search/images/2")
        (Path(index).parent / "gone").rename(Path(index).parent / "2.png")
        return response

    assert "no longer what was indexed" in problem(served(model, work, index), 404, "number")


def test_an_index_of_another_model_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="is no index"):
        asked(model, "/v1/heads", "GET", settings={"index": str(tmp_path)})


def test_explanations(model):
    content = asked(model, "/v1/explain", **form(head="vqa", images=[PNG], text="is it a dog")).json()
    expected = explain(model, "vqa", Request([PNG], "is it a dog"))
    assert (content["answer"], content["tokens"]) == (expected.answer, expected.tokens)
    assert content["value"] == pytest.approx(expected.value, abs=1e-5)
    np.testing.assert_allclose(content["image"], expected.image, atol=1e-5)
    np.testing.assert_allclose(content["words"], expected.words, atol=1e-5)
    (only,) = content["maps"]
    assert only["place"] == pytest.approx([0, 0, 40, 30])
    pair = asked(model, "/v1/explain", **body(head="nlvr2", images=[PNG, OTHER], text="two dogs", choice=1)).json()
    assert len(pair["maps"]) == 2
    request = form(head="refer", images=[PNG], text="the dog", boxes=[[1, 2, 12, 9], [20, 5, 39, 29]], method="rollout")
    assert asked(model, "/v1/explain", **request).json()["method"] == "rollout"


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"images": [PNG], "text": "a"}, 400, "head"),
        ({"head": "captioner", "images": [PNG]}, 422, "head"),
        ({"head": "vqa", "images": [PNG], "text": "a", "method": "none"}, 422, "method"),
        ({"head": "vqa", "images": [PNG], "text": "a", "choice": 99}, 422, "choice"),
        ({"head": "vqa", "images": [PNG]}, 400, "text"),
        ({"head": "nlvr2", "images": [PNG], "text": "a"}, 422, "images"),
        ({"head": "vqa", "images": [PNG], "text": "a", "boxes": [[1, 1, 2, 2]]}, 422, "boxes"),
        ({"head": "vqa", "images": [PNG[:-60]], "text": "a"}, 400, "images"),
    ],
)
def test_what_is_not_explained(model, fields, status, field):
    problem(asked(model, "/v1/explain", **form(**fields)), status, field)


def test_more_than_four_explanations_at_once_are_refused(model, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr("vlc.use.service.others.explain", lambda *given, **options: go.wait(20) and explain(*given))
    request = form(head="vqa", images=[PNG], text="what")

    async def work(client, _):
        sent = [asyncio.create_task(client.post("/v1/explain", **request)) for _ in range(5)]
        refused, _ = await asyncio.wait(sent, return_when=asyncio.FIRST_COMPLETED)
        go.set()
        return refused.pop().result(), sorted([one.status_code for one in await asyncio.gather(*sent)])

    refused, statuses = served(model, work)
    assert problem(refused, 503) == "4 explanations are under way"
    assert statuses == [200, 200, 200, 200, 503]
