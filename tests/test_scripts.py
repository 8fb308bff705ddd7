"""The scripts beside the packages."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("script", SCRIPTS / "train_emoji_tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tokenizer_is_trained_on_names_and_scenes(script, monkeypatch, tmp_path):
    from tokenizers import Tokenizer

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
