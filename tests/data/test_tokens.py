"""Tokenizers and the hiding of tokens."""

import json
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import ByteLevel, TemplateProcessing
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from vlc.common.errors import UserError
from vlc.data.tokens import TextEncoder, TokenHider, Tokens, load_tokenizer, vocabulary

TEXT = "two dogs and an unbelievable airplane"


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(load_tokenizer("emoji"), max_text_len=12)


def test_embedded_tokenizer_knows_the_scenes_and_ten_languages():
    tokenizer = load_tokenizer("emoji")
    assert tokenizer.tokenize("Two dogs; the airplane?") == ["two", "dogs", ";", "the", "airplane", "?"]
    for text in ("Fußgängerin", "にっこり笑う", "嘿嘿", "दाँत", "вода", "علم"):
        assert tokenizer.unk_token not in tokenizer.tokenize(text), text


def test_local_folder(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    assert TextEncoder(load_tokenizer(str(tmp_path)), 8)("dogs").ids == [2, 5, 6, 3]


def test_unknown_name_is_explained(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no waiting for a connection
    with pytest.raises(UserError, match=r"tokenizer='no/such'.*emoji"):
        load_tokenizer("no/such")


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "##s", "of"]


def _vocabulary(folder: Path, *more: str) -> str:
    (folder / "vocab.txt").write_text("\n".join([*WORDS, *more]) + "\n")
    return str(folder)


def test_folder_of_a_vocabulary_alone(tmp_path):
    folder = _vocabulary(tmp_path)
    assert TextEncoder(load_tokenizer(folder), 8)("Dogs of").ids == [2, 5, 6, 7, 3]
    folder = _vocabulary(tmp_path, "Dog")  # a vocabulary with capitals is cased
    assert TextEncoder(load_tokenizer(folder), 8)("Dogs of").ids == [2, 8, 6, 7, 3]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("tokenizer_config.json", {"do_lower_case": False}),  # as BERT's first releases have it
        ("config.json", {"model_type": "vilt"}),
        ("tokenizer_config.json", {"tokenizer_class": "DistilBertTokenizer"}),
    ],
)
def test_vocabulary_with_a_configuration(tmp_path, name, config):
    folder = _vocabulary(tmp_path, "Dog")
    (tmp_path / name).write_text(json.dumps(config))
    assert TextEncoder(load_tokenizer(folder), 8)("Dog of").ids == [2, 5 + 3 * ("do_lower_case" in config), 7, 3]


@pytest.mark.parametrize(("words", "piece"), [(["o"], "o"), (["o", "ö"], "ö")])
def test_a_vocabulary_alone_keeps_accents_that_it_has(tmp_path, words, piece):
    assert load_tokenizer(_vocabulary(tmp_path, *words)).tokenize("Ö") == [piece]


@pytest.mark.parametrize("lacking", ["[MASK]", "[CLS]", "[PAD]"])
def test_vocabulary_without_a_special_token(tmp_path, lacking):
    (tmp_path / "vocab.txt").write_text("\n".join(word for word in WORDS if word != lacking))
    try:
        encoder = TextEncoder(load_tokenizer(str(tmp_path)), 8)
    except UserError as error:
        assert "vocabulary" in str(error)  # noqa: PT017
    else:  # transformers adds the token behind the others
        assert encoder.vocab_size == len(WORDS)
        assert len({encoder.pad_id, encoder.mask_id, *encoder("dog").ids}) == 5


def _custom(folder: Path, post_processor=None, gap: int = 0, **special: str) -> str:
    """A tokenizer of words as other projects save them; the last word's id lies `gap` further."""
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    vocabulary["of"] += gap
    rust = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    if post_processor is not None:
        rust.post_processor = post_processor
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"} | special
    PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="[UNK]", **special).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    "post_processor",
    [None, TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)]), ByteLevel()],
)
def test_ends_are_put_where_the_tokenizer_does_not(tmp_path, post_processor):
    encoder = TextEncoder(load_tokenizer(_custom(tmp_path, post_processor)), 4)
    assert encoder("dogs").ids == [2, 5, 6, 3]
    assert encoder("dog dog dog").ids == [2, 5, 5, 3], "the ends stay when a text is cut"
    assert encoder("dogs").words == [-1, 0, 0, -1]
    assert pickle.loads(pickle.dumps(encoder))("dogs").ids == [2, 5, 6, 3]


def test_tags_are_padded_with_their_texts(encoder):
    text = encoder.pad([[2, 5, 6, 3], [2, 5, 3]], tags=[[0, 1, 1, 0], [0, 0, 0]])
    assert text.tags.tolist() == [[0, 1, 1, 0, 0, 0, 0, 0], [0] * 8]
    assert text.segments is None
    assert encoder.pad([[2, 3]], tags=[None]).tags is None
    assert encoder.pad([[2, 3]], tags=[[0, 0]]).tags is not None, "a batch in which no word names a box has tags, too"


def test_tokenizer_without_a_class_token(tmp_path):
    with pytest.raises(UserError, match="lacks cls_token"):
        load_tokenizer(_custom(tmp_path, cls_token=None))


def test_gaps_between_ids(tmp_path):
    tokenizer = load_tokenizer(_custom(tmp_path, gap=30))
    encoder = TextEncoder(tokenizer, 8)
    assert max(encoder("dog of").ids) == 37
    assert encoder.vocab_size == 38
    assert vocabulary(tokenizer, None) == (0, 38)
    assert vocabulary(tokenizer, 50) == (0, 50)
    with pytest.raises(UserError, match=r"vocab_size=37 is smaller than the vocabulary .* \(38\)"):
        vocabulary(tokenizer, 37)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache of the hub, and a failure for whoever asks for an address."""
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *_, **__: asked.append(host) or pytest.fail(f"asked {host}"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    # Another test may have filled this one already.
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._registry", None, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.AGENT_HARNESSES_PATH", str(tmp_path / "agents.json"), raising=False)
    yield
    assert not asked  # some callers swallow the failure


@pytest.mark.parametrize("name", ["evil/tokenizer", "evil", "a/b/c", "../evil", "https://evil.example/x", "a\0b"])
@pytest.mark.usefixtures("no_network")
def test_no_hub_is_asked_for_names_out_of_checkpoints(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"made with tokenizer='.*pass tokenizer=NAME or tokenizer=FOLDER"):
        load_tokenizer(name, stored=True)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.usefixtures("no_network")
def test_a_cached_tokenizer_is_taken_without_asking(tmp_path, stored):
    cached = tmp_path / "hub/models--some--one"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("abc")
    load_tokenizer("emoji").save_pretrained(cached / "snapshots/abc")
    tokenizer = load_tokenizer("some/one", stored=stored)
    assert tokenizer.get_vocab() == load_tokenizer("emoji").get_vocab()
    assert tokenizer.name_or_path == "some/one"


@pytest.mark.parametrize("evil", ["another/repository", "another/repository--code.Theirs"])
@pytest.mark.usefixtures("no_network")
def test_names_inside_a_folder_are_not_asked_for(tmp_path, evil):
    load_tokenizer("emoji").save_pretrained(tmp_path)
    named = {"_name_or_path": evil, "name_or_path": evil, "base_model_name_or_path": evil}
    named |= {"auto_map": {"AutoTokenizer": [evil, evil], "AutoConfig": evil}, "tokenizer_class": "Theirs"}
    for name in ("tokenizer_config.json", "config.json", "adapter_config.json"):
        path = tmp_path / name
        path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | named))
    with pytest.raises(UserError, match="no tokenizer can be read from this folder"):
        load_tokenizer(str(tmp_path), stored=True)


@pytest.mark.parametrize(
    "failure", [URLError("no route"), TimeoutError("timed out"), ConnectionRefusedError("refused")]
)
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, failure):
    asked = []

    def answer(request, timeout):
        asked.append(request.full_url)
        raise failure

    monkeypatch.setattr("vlc.data.tokens.urlopen", answer)
    with pytest.raises(UserError, match=r"does not answer: .*hf download no/such --local-dir FOLDER.*tokenizer=FOLDER"):
        load_tokenizer("no/such")
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab"])
def test_code_beside_a_tokenizer_is_not_run(tmp_path, monkeypatch, name):
    """Whether transformers knows a class of its own for the folder or not; it asks nobody either."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run it"))
    (tmp_path / "code.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import BertTokenizerFast as Theirs\n"
    )
    _custom(tmp_path) if name == "tokenizer.json" else _vocabulary(tmp_path)
    for theirs in ("Theirs", "BertTokenizerFast", None):
        path = tmp_path / "tokenizer_config.json"
        config = json.loads(path.read_text()) if path.exists() else {}
        config |= {"auto_map": {"AutoTokenizer": ["code.Theirs", "code.Theirs"]}, "tokenizer_class": theirs}
        path.write_text(json.dumps(config))
        try:
            load_tokenizer(str(tmp_path))
        except UserError as error:
            assert str(tmp_path) in str(error)  # noqa: PT017
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b"[" * 100_000),
        ("tokenizer.json", b'{"version": "1.0"}'),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\n"),
        ("tokenizer_config.json", b"3"),
        ("tokenizer_config.json", b"{"),
    ],
)
def test_damaged_folders(tmp_path, name, content):
    folder = _custom(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        UserError, match=r"no tokenizer can be read from this folder \(.*fetch it again, or pass another"
    ):
        load_tokenizer(folder)


def test_a_file_or_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match="no tokenizer can be read from this folder"):
        load_tokenizer(str(tmp_path))
    _vocabulary(tmp_path)
    with pytest.raises(UserError, match="is a file: name the folder"):
        load_tokenizer(str(tmp_path / "vocab.txt"))


def test_same_ids_as_transformers(encoder):
    tokenizer = load_tokenizer("emoji")
    for text in (TEXT, "a " * 30, ""):
        assert encoder(text).ids == tokenizer(text, truncation=True, max_length=12)["input_ids"]


def test_padding_to_a_multiple_of_eight_but_not_above_the_longest_allowed(encoder):
    batch = encoder.pad([[1, 2, 3], [4]])
    assert batch.ids.shape == (2, 8)
    assert batch.mask.sum(1).tolist() == [3, 1]
    assert batch.num_real == 4
    assert batch.ids[1].tolist() == [4] + [encoder.pad_id] * 7
    assert encoder.pad([list(range(10))]).ids.shape == (1, 12)


def test_words_of_pieces(encoder):
    tokens = encoder("unbelievable dog")
    assert tokens.words[0] == tokens.words[-1] == -1
    assert len(set(tokens.words)) == 3


def _published_whole_words(pieces: list[int], length: int, probability: float, tries: int) -> tuple[np.ndarray, int]:
    """How often the published code hides each word of a text, and how often none, said anew: tokens padded to `length`,
    every [PAD] a candidate like a word, as many tokens drawn as `probability` of the padded length, [PAD]s then kept."""
    rng = np.random.default_rng(1)
    candidates = pieces + [1] * (length - 2 - sum(pieces))
    budget = max(1, round(length * probability))
    counts, nothing = np.zeros(len(pieces)), 0
    for _ in range(tries):
        taken, hidden = 0, []
        for candidate in rng.permutation(len(candidates)):
            if taken >= budget:
                break
            if taken + candidates[candidate] > budget:
                continue
            taken += candidates[candidate]
            if candidate < len(pieces):
                hidden.append(candidate)
        counts[hidden] += 1
        nothing += not hidden
    return counts, nothing


class TestHiding:
    def _many(self, encoder, whole_words, text=TEXT, probability=0.15):
        hider, tokens = TokenHider(encoder, probability, whole_words), encoder(text)
        return tokens, [hider(tokens, np.random.default_rng(seed)) for seed in range(4000)]

    def test_special_tokens_are_never_hidden(self, encoder):
        for whole_words in (False, True):
            tokens, hidden = self._many(encoder, whole_words)
            assert not {p for row in hidden for p in row.positions} & {0, len(tokens.ids) - 1}

    def test_share_and_replacements(self, encoder):
        tokens, hidden = self._many(encoder, whole_words=False)
        chosen = [(row.ids[p], tokens.ids[p]) for row in hidden for p in row.positions]
        share = len(chosen) / len(hidden) / (len(tokens.ids) - 2)
        assert share == pytest.approx(0.15, abs=0.01)
        masked = sum(new == encoder.mask_id for new, _ in chosen) / len(chosen)
        kept = sum(new == old for new, old in chosen) / len(chosen)
        assert masked == pytest.approx(0.8, abs=0.03)
        assert kept == pytest.approx(0.1, abs=0.03)
        assert all(
            new == old
            for row in hidden
            for p, (new, old) in enumerate(zip(row.ids, tokens.ids, strict=True))
            if p not in row.positions
        )

    @pytest.mark.parametrize("how", [{}, {"whole_words": True}, {"word_by_word": True}])
    def test_half_of_the_pairs_have_words_hidden_in_one_segment_alone(self, encoder, how):
        tokens = encoder.composed([("two dogs and an", 0), ("airplane house red", 1)])
        plain = TokenHider(encoder, 0.4, **how)
        both, shown = 0, []
        for seed in range(400):
            before = plain(tokens, np.random.default_rng(seed))
            hidden = TokenHider(encoder, 0.4, **how, one_segment=0.5)(tokens, np.random.default_rng(seed))
            assert hidden.positions == [p for p in before.positions if p in hidden.positions]
            for place, (new, old) in enumerate(zip(hidden.ids, before.ids, strict=True)):
                assert new == (old if place in hidden.positions else tokens.ids[place])
            both += hidden == before
            segments = {tokens.segments[place] for place in before.positions}
            if len(segments) == 2 and hidden != before:
                shown.append({0, 1} - {tokens.segments[place] for place in hidden.positions})
        assert sum(one == {0} for one in shown) / len(shown) == pytest.approx(0.5, abs=0.1)
        assert all(len(one) == 1 for one in shown)
        assert both > 160
        single = encoder("two dogs and an")
        one, other = (TokenHider(encoder, 0.4, **how, one_segment=share) for share in (0.0, 1.0))
        assert one(single, np.random.default_rng(1)) == other(single, np.random.default_rng(1))

    @pytest.mark.parametrize("mode", [{}, {"whole_words": True}, {"word_by_word": True}])
    def test_special_tokens_are_drawn_again(self, encoder, mode):
        """Every other draw is as it would be without special tokens."""
        tokens, hide, as_drawn = encoder("dog"), *(TokenHider(encoder, 1.0, **mode) for _ in range(2))
        hide.vocab_size = as_drawn.vocab_size = 7  # five of which are special
        as_drawn.special_ids = frozenset()
        replaced = again = 0
        for seed in range(300):
            found, plain = (one(tokens, np.random.default_rng(seed)) for one in (hide, as_drawn))
            ours, theirs = (np.random.default_rng(seed) for _ in range(2))
            assert (hide(tokens, ours), ours.random()) == (found, (as_drawn(tokens, theirs), theirs.random())[1])
            drawn = [i for i, (new, old) in enumerate(zip(found.ids, plain.ids, strict=True)) if new != old]
            assert {plain.ids[i] for i in drawn} <= encoder.special_ids
            assert {found.ids[i] for i in found.positions} <= {encoder.mask_id, 5, 6, *tokens.ids}
            assert found.positions == plain.positions
            replaced += sum(found.ids[i] in (5, 6) for i in found.positions)
            again += len(drawn)
        assert replaced > again > 0

    def test_whole_words_are_hidden_whole_and_at_least_one(self, encoder):
        tokens, hidden = self._many(encoder, whole_words=True)
        assert len(set(tokens.words)) < len(tokens.words) - 1, "some word has several pieces"
        for row in hidden:
            words = {tokens.words[p] for p in row.positions}
            assert sorted(row.positions) == [p for p, word in enumerate(tokens.words) if word in words]
        assert min(len(row.positions) for row in hidden) > 0

    @pytest.mark.parametrize("num_words", [1, 3, 7, 12, 30])
    def test_words_are_hidden_as_often_as_the_published_code_hides_them(self, num_words):
        """Words of one piece and of two, in texts of many lengths; where the published draw hides nothing, one is."""
        pieces = [1 + word % 2 for word in range(num_words)]  # of each word
        words = [word for word, count in enumerate(pieces) for _ in range(count)]
        tokens = Tokens([2, *[9] * len(words), 3], [-1, *words, -1])
        length, probability, tries = 64, 0.15, 4000
        encoder = TextEncoder(load_tokenizer("emoji"), max_text_len=length)
        hider = TokenHider(encoder, probability, whole_words=True)
        ours = np.zeros(num_words)
        for seed in range(tries):
            hidden = {tokens.words[p] for p in hider(tokens, np.random.default_rng(seed)).positions}
            assert hidden, "at least one token always"
            ours[list(hidden)] += 1
        theirs, nothing = _published_whole_words(pieces, length, probability, tries)
        expected = (theirs + nothing / num_words) / tries
        for size in (1, 2):
            of_size = [word for word, count in enumerate(pieces) if count == size]
            if of_size:
                assert ours[of_size].mean() / tries == pytest.approx(expected[of_size].mean(), abs=0.02)

    def test_a_word_of_two_pieces_in_a_short_text_is_hidden_as_published(self):
        """Six of 40 tokens are drawn, so it is one of the first five of 38 candidates; of its own 8 tokens one would be."""
        theirs, _ = _published_whole_words([1, 1, 2, 1, 1], 40, 0.15, 20000)
        assert theirs[2] / 20000 == pytest.approx(5 / 38, abs=0.01)
        tokens = Tokens([2, 9, 9, 9, 9, 9, 9, 3], [-1, 0, 1, 2, 2, 3, 4, -1])
        hider = TokenHider(TextEncoder(load_tokenizer("emoji"), max_text_len=40), 0.15, whole_words=True)
        ours = [3 in hider(tokens, np.random.default_rng(seed)).positions for seed in range(4000)]
        assert np.mean(ours) > 5 / 38 - 0.02

    def test_one_long_word_alone_is_hidden(self):
        encoder = TextEncoder(load_tokenizer("emoji"), max_text_len=16)
        tokens = Tokens([2, *[9] * 6, 3], [-1, *[0] * 6, -1])
        hidden = TokenHider(encoder, 0.15, whole_words=True)(tokens, np.random.default_rng(0))
        assert hidden.positions == [1, 2, 3, 4, 5, 6]

    def test_an_empty_text_hides_nothing(self, encoder):
        for whole_words in (False, True):
            assert TokenHider(encoder, 0.15, whole_words)(encoder(""), np.random.default_rng(0)).positions == []
