"""The scripts beside the packages."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

from PIL import Image

from write_arrow.sources.emoji import packaged

SCRIPTS = Path(__file__).parents[1] / "scripts"


def _loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("script", SCRIPTS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tokenizer_is_trained_on_names_and_scenes(monkeypatch, tmp_path):
    from tokenizers import Tokenizer

    script = _loaded("train_emoji_tokenizer.py")
    names, texts = list(script.texts(0)), list(script.texts(30))
    assert names.count("grinning face") >= script.ENGLISH_COPIES
    assert texts[: len(names)] == names
    scenes = texts[len(names) :]
    assert len(scenes) > 30 * 4, "captions and questions"
    assert any(text.startswith("how many ") for text in scenes)
    assert any(text.startswith("there is ") for text in scenes)
    few = [*dict.fromkeys(names[:3000]), *scenes]
    monkeypatch.setattr(script, "texts", lambda: iter(few))
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    monkeypatch.setattr(script, "VOCAB_SIZE", 600)
    script.main()
    tokens = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("How many grinning faces").tokens
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    assert "[UNK]" not in tokens


def test_names_are_read_from_both_parts_of_cldr(tmp_path):
    for package, part, texts in (
        ("cldr-annotations-full", "annotations", {"✈": {"tts": ["avião"]}, "🐕": {"default": ["animal"]}}),
        ("cldr-annotations-derived-full", "annotationsDerived", {"🇳🇴": {"tts": ["bandeira: Noruega"]}}),
    ):
        path = tmp_path / package / part / "pt" / "annotations.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({part: {"annotations": texts}}), encoding="utf-8")
    names = dict(
        zip(packaged()["emoji"].to_pylist(), _loaded("make_emoji_names.py").names(tmp_path, "pt"), strict=True)
    )
    assert {emoji: name for emoji, name in names.items() if name} == {"✈️": "avião", "🇳🇴": "bandeira: Noruega"}


def test_the_samples_of_the_page_are_scenes(monkeypatch, tmp_path):
    script = _loaded("make_page_samples.py")
    kept = script.FOLDER
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    script.main()
    assert (tmp_path / "samples.json").read_text() == (kept / "samples.json").read_text()
    names = sorted(path.name for path in kept.glob("*.png"))
    assert len(names) == 8
    for name in names:
        with Image.open(tmp_path / name) as made, Image.open(kept / name) as own:
            assert (made.size, made.tobytes()) == (own.size, own.tobytes())
