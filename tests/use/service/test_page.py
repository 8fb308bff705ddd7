"""The page in a real Chromium: every tab, pictures, errors, addresses, the keyboard, narrow and dark screens, no script."""

import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests import tiny
from vlc.configuration.command_settings import ServiceSettings
from vlc.use.forms import Request
from vlc.use.model import Model
from vlc.use.service.app import create_app
from vlc.use.service.page import LABELS

expect.set_options(timeout=20_000)  # on a busy machine

BROWSERS = ("chromium", "google-chrome")
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
FILLED = {  # what the tests put into fields, by the fields' names
    "text": "a dog left of the [MASK]",
    "second_text": "ein Hund",
    "options": "yes\n<b>no</b>",
    "word": "dog",
    "boxes": "1, 2, 20, 30",
}


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address at which an application listens meanwhile."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def address(model: Model, index: str) -> Iterator[str]:
    """Where a service with the model and the index listens."""
    with listening(create_app({"random": model}, ServiceSettings(), index)) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Without it the tests are skipped, and fail in CI."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Chromium is not installed: make browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, just opened. Errors in the console and requests to other hosts fail the test."""
    page, faults = browser.new_page(), []
    yield opened(page, address, faults)
    page.close()
    assert not faults


def opened(page: Page, address: str, faults: list[str]) -> Page:
    def heard(message) -> None:
        refused = "/v1/" in message.location["url"] and "status of 4" in message.text  # an error that the page shows
        if message.type in ("error", "warning") and not refused:
            faults.append(message.text)

    page.set_default_timeout(20_000)
    page.on("console", heard)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(address) else faults.append(request.url))
    page.goto(address)
    return page


def panel(page: Page) -> Locator:
    return page.locator("[role=tabpanel]:visible")


def fill(page: Page, **values: str) -> None:
    """Choose samples, and fill in the fields that are wanted, or that `values` name."""
    for place, picture in enumerate(page.locator(".picture:visible").all()):
        picture.locator(".samples input").nth(place).check()
        expect(picture.locator("canvas.shown")).to_be_visible()
    for field in panel(page).locator("input[name], textarea[name]").all():
        name = field.get_attribute("name")
        if name in values or field.get_attribute("required") is not None:
            field.fill(values.get(name, FILLED[name]))


def ask(page: Page) -> Locator:
    panel(page).locator(".ask").click()
    expect(panel(page).locator(".answer").first).to_be_visible()
    return panel(page).locator(".answers")


def test_every_tab_answers(page, model):
    tabs = page.get_by_role("tab")
    assert tabs.all_text_contents() == [*model.forms, "search"]
    for tab in tabs.all()[:-1]:
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")
        fill(page)
        answers = ask(page)
        best = answers.locator("li .name").first.text_content()
        expect(panel(page).get_by_role("status")).to_contain_text(f"Answer: {best}")
        assert panel(page).get_attribute("aria-labelledby") == tab.get_attribute("id")


def test_an_upload_is_shown_and_gets_the_answers_of_the_model(page, model, tmp_path):
    file = tmp_path / "picture.png"
    file.write_bytes(tiny.image_bytes(5, kind="PNG"))
    page.get_by_role("tab", name="vqa").click()
    page.locator("#file0").set_input_files(file)
    panel(page).locator("[name=text]").fill("a dog")
    found = [name.text_content() for name in ask(page).locator(".name").all()]
    (answer,) = (one for one in model.answer(str(file), "a dog") if one.head == "vqa")
    assert found == [name for name, _ in answer.choices]
    canvas = page.locator("canvas.shown").first
    assert canvas.evaluate("canvas => [canvas.width, canvas.height]") == [40, 30]
    assert drawn(canvas) > 1000
    page.locator(".samples input").first.check()  # another picture: the answers were about the first one
    expect(panel(page).locator(".answer")).to_have_count(0)
    assert page.locator("#file0").input_value() == ""
    dropped = page.evaluate_handle(
        "() => { const one = new DataTransfer(); one.items.add(new File(['x'], 'x.png')); return one; }"
    )
    page.locator(".picture").first.dispatch_event("drop", {"dataTransfer": dropped})
    assert page.locator("#file0").input_value().endswith("x.png")
    expect(page.locator(".samples input:checked")).to_have_count(0)


def drawn(canvas: Locator) -> int:
    """How many different colours a canvas shows."""
    return canvas.evaluate(
        "canvas => new Set(new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
        ".data.buffer)).size"
    )


def test_errors_stand_beside_their_fields(page, tmp_path):
    page.get_by_role("tab", name="nlvr2").click()
    panel(page).locator(".ask").click()
    expect(page.locator("#file0-problem")).to_have_text("Please choose a picture.")
    expect(page.locator("#panel-nlvr2-text-problem")).to_have_text("Please fill this in.")
    expect(page.locator("#file0")).to_be_focused()
    fill(page)
    file = tmp_path / "notes.png"
    file.write_text("no picture")
    page.locator("#file1").set_input_files(file)
    panel(page).locator(".ask").click()
    expect(page.locator("#file1-problem")).to_contain_text("no picture")
    expect(page.locator("#file1")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#file0-problem")).to_be_hidden()
    fill(page)
    ask(page)
    expect(page.locator("#file1-problem")).to_be_hidden()
    page.get_by_role("tab", name="refer", exact=True).click()
    for boxes, said in {"1, 2, 3": "four numbers", "1, 1, 9, 9\n500, 500, 600, 600": "no box"}.items():
        fill(page, boxes=boxes)
        panel(page).locator(".ask").click()
        expect(page.locator("#panel-refer-boxes-problem")).to_contain_text(said)


def test_back_and_forward(page, address):
    for name in ("nlvr2", "refer_box", "vqa"):
        page.get_by_role("tab", name=name, exact=True).click()
        assert page.url == f"{address}/page/{name}"
    panel(page).locator("[name=text]").fill("kept")
    page.go_back()
    expect(page.get_by_role("tab", name="refer_box")).to_have_attribute("aria-selected", "true")
    assert page.title() == "refer_box · vlc"
    page.go_back()
    expect(page.locator(".picture:visible")).to_have_count(2)
    page.reload()
    expect(page.get_by_role("tab", name="nlvr2")).to_have_attribute("aria-selected", "true")
    for _ in range(2):
        page.go_forward()
    expect(page.locator("#panel-vqa")).to_be_visible()


def test_the_keyboard_is_enough(page):
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab").first).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab").last).to_be_focused()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    focused = page.locator(":focus")
    assert focused.evaluate("tab => getComputedStyle(tab).outlineStyle") == "solid"
    page.keyboard.press("Space")
    expect(focused).to_have_attribute("aria-selected", "true")
    for _ in range(2):
        page.keyboard.press("Tab")  # over the file to the samples
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    second = page.locator(".samples input").nth(1)
    expect(second).to_be_checked()
    assert second.evaluate("input => getComputedStyle(input.nextElementSibling).outlineStyle") == "solid"
    page.keyboard.press("Tab")
    page.keyboard.type("both show a dog")
    page.keyboard.press("Enter")
    expect(panel(page).get_by_role("status")).to_contain_text("Answer:")


def test_boxes_are_drawn_and_typed(page):
    page.get_by_role("tab", name="refer", exact=True).click()
    fill(page)
    stage = page.locator(".stage").first
    edges = stage.bounding_box()
    at = [(edges["x"] + share * edges["width"], edges["y"] + share * edges["height"]) for share in (0.25, 0.75)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1])
    page.mouse.up()
    field = panel(page).locator("[name=boxes]")
    assert field.input_value() == "16, 16, 48, 48"
    field.focus()
    page.keyboard.press("Control+End")
    page.keyboard.type("\n1, 2, 20, 30")
    expect(page.locator("rect.given")).to_have_count(2)
    answers = ask(page)
    expect(page.locator("rect.found")).to_have_count(2)
    answers.locator("button.name").last.focus()
    expect(page.locator("rect.pointed")).to_have_count(1)
    page.get_by_role("tab", name="vqa").click()
    expect(page.locator(".boxes rect")).to_have_count(0)
    page.go_back()
    expect(page.locator(".boxes rect")).to_have_count(4)
    panel(page).get_by_role("button", name="Use the boxes of the sample").click()
    assert len(field.input_value().split("\n")) == 5


def test_maps_show_what_mattered(page):
    page.get_by_role("tab", name="vqa").click()
    fill(page)
    ask(page)
    heat = page.locator("canvas.heat").first
    expect(heat).to_be_hidden()
    panel(page).get_by_role("button", name="Show what mattered").click()
    words = panel(page).locator(".words button")
    expect(words.first).to_have_attribute("aria-pressed", "true")
    assert words.all_text_contents() == ["the answer", *FILLED["text"].split()]
    expect(heat).to_be_visible()
    whole = heat.evaluate("canvas => canvas.toDataURL()")
    assert drawn(heat) > 1
    words.nth(2).focus()
    expect(words.nth(2)).to_have_attribute("aria-pressed", "true")
    assert heat.evaluate("canvas => canvas.toDataURL()") != whole
    expect(panel(page).get_by_text("matters for “dog”")).to_be_visible()


def test_search_shows_strips_of_pictures(page):
    page.get_by_role("tab", name="search").click()
    expect(page.locator(".picture:visible")).to_have_count(0)  # this index has no texts to find
    panel(page).locator("[name=text]").fill("a dog")
    page.keyboard.press("Enter")
    found = panel(page).locator(".strip li")
    expect(found).to_have_count(3)
    expect(panel(page).get_by_role("status")).to_have_text("3 found")
    for one in found.all():
        expect(one.locator("canvas[width='40']")).to_be_visible()
        assert drawn(one.locator("canvas")) > 100


def test_texts_are_no_markup(page):
    page.get_by_role("tab", name="visdial").click()
    fill(page, text="<img src=x onerror=alert(1)>")
    answers = ask(page)
    assert "<b>no</b>" in answers.locator(".name").all_text_contents()
    assert answers.locator("b").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_in_both_schemes(browser, address, scheme):
    page, faults = browser.new_page(viewport={"width": 320, "height": 640}, color_scheme=scheme), []
    opened(page, address, faults)
    for tab in page.get_by_role("tab").all():
        tab.click()
        if tab.text_content() in ("vqa", "nlvr2", "refer"):
            fill(page)
            ask(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        assert all(page.evaluate(CONTRASTS))
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.search(r"\d+", ground)[0]) < 128) == (scheme == "dark")
    page.close()
    assert not faults


# Whether each visible text has a contrast of 4.5 at least (WCAG 2, AA).
CONTRASTS = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => numbers(color).slice(0, 3).map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, place) => sum + one * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return numbers(color)[3] === 0 ? ground(element.parentElement) : color;
  };
  const texts = [...document.querySelectorAll("h1, p, a, label, legend, button, input, textarea, .name, .value")];
  return texts.filter((one) => one.checkVisibility() && one.textContent.trim()).map((one) => {
    const [low, high] = [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05) >= 4.5;
  });
}"""


def test_the_form_answers_without_scripts(browser, address, tmp_path):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{address}/page/vqa")
    page.locator(".samples input").first.check()
    panel(page).locator("[name=text]").fill('"<i>dog</i>"')
    panel(page).locator(".ask").click()
    assert page.url == f"{address}/page/vqa"
    assert panel(page).locator(".answer li").count() > 1
    assert panel(page).locator("[name=text]").input_value() == '"<i>dog</i>"'
    file = tmp_path / "notes.txt"
    file.write_text("no picture")
    page.locator("#file0").set_input_files(file)
    panel(page).locator(".ask").click()
    expect(page.locator("#file0-problem")).to_contain_text("no picture")
    page.get_by_role("tab", name="refer", exact=True).click()
    page.locator(".samples input").first.check()
    panel(page).locator("[name=text]").fill("a dog")
    for boxes, said in {"1, 2, 3": "boxes", "1, 2, 20, 30\n3, 4, 30, 40": None}.items():
        panel(page).locator("[name=boxes]").fill(boxes)
        page.locator(".samples input").first.check()
        panel(page).locator(".ask").click()
        if said:
            expect(page.locator("#panel-refer-boxes-problem")).to_contain_text(said)
    assert panel(page).locator(".answer li").count() == 2
    page.close()


def test_a_key_is_asked_for(browser, model):
    settings = ServiceSettings(api_key="secret")
    with listening(create_app({"one": model, "two": model}, settings)) as address:
        page, faults = browser.new_page(), []
        opened(page, address, faults)
        page.get_by_role("tab", name="vqa · two").click()
        fill(page)
        panel(page).locator(".ask").click()
        expect(panel(page).get_by_role("alert").first).to_contain_text("key")
        page.get_by_label("Key").fill("secret")
        ask(page)
        page.reload()
        assert page.get_by_label("Key").input_value() == "secret"
        page.close()
        credentials = {"username": "a", "password": "secret"}  # which the browser asks for
        page = browser.new_page(java_script_enabled=False, http_credentials=credentials)
        page.goto(f"{address}/page/one/vqa")
        page.locator(".samples input").first.check()
        panel(page).locator("[name=text]").fill("a dog")
        panel(page).locator(".ask").click()
        expect(panel(page).locator(".answer li").first).to_be_visible()
        page.close()
    assert not faults


def test_every_field_of_a_request_has_a_label():
    of_python = {
        "box_names",
        "outlines",
        "tags",
        "known",
        "right",
    }  # rows of data and calls have them, and no form asks for them
    assert {field.name for field in fields(Request)} - {"images"} - of_python == set(LABELS)


def test_nothing_is_inline(address):
    """The content security policy refuses scripts and styles inside the page, and pictures of other hosts."""
    policy = httpx.get(address).headers["content-security-policy"]
    assert "default-src 'self';" in policy
    assert not re.search(r"unsafe|data:|blob:|https?:|\*", policy)
    folder = Path(__file__).parents[3] / "vlc/use/service"
    for path in folder.joinpath("templates").iterdir():
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", path.read_text(encoding="utf-8"))
    assert "innerHTML" not in folder.joinpath("static/page.js").read_text(encoding="utf-8")
