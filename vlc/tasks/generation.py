"""Generation: texts are written, as translations or captions."""

from vlc.tasks.task import SMALL, Task

_TRANSLATION_HEAD, _CAPTION_HEAD = {"generation": "translator"}, {"generation": "captioner"}


def _scenes(kinds: tuple[str, ...], tested: str) -> Task:
    """Translation of English descriptions of scenes. tested: the kind of the descriptions in evaluation."""
    return Task(
        {"generation": 1},
        ("emoji_translations",),
        _TRANSLATION_HEAD,
        {"generation": {"target": "second_text", "languages": ("de", "fr", "cs"), "max_target_len": 60}},
        **SMALL | {"max_text_len": 96},  # descriptions have up to 32 tokens in English, and 57 in German
        learning_rate=1e-3,
        evaluators={"translation": 0, "inputs": 0},
        where={"kind": kinds},
        tested_where={"kind": (tested,)},
        pairs=("en-de", "en-fr", "en-cs"),
    )


TASKS = {
    # Texts of Multi30k are short; few have more than 64 pieces of a vocabulary of many languages.
    "translation_multi30k": Task(
        {"generation": 1},
        ("multi30k",),
        _TRANSLATION_HEAD,
        {"generation": {"target": "second_text", "languages": ("de", "fr", "cs"), "max_target_len": 64}},
        max_text_len=128,
        batch_size=128,
        epochs=30,
        pairs=("en-de", "en-fr", "en-cs"),
        evaluators={"translation": 1, "inputs": 0},
        published=("translation",),
    ),
    "caption_coco": Task(
        {"generation": 1}, ("coco",), _CAPTION_HEAD, max_text_len=36, epochs=10, evaluators={"captions": 1}
    ),
    "translation_emoji": _scenes(("translation", "hidden"), "translation"),
    "translation_hidden_emoji": _scenes(("hidden",), "hidden"),
    "caption_emoji": Task(
        {"generation": 1},
        ("emoji_scenes",),
        _CAPTION_HEAD,
        {"generation": {"max_target_len": 24}},
        **SMALL | {"max_text_len": 28},
        learning_rate=1e-3,
        evaluators={"captions": 0},
    ),
}
