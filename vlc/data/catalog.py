"""CATALOG: every data set the suite reads, a row each. Adding one is adding a row."""

from collections.abc import Mapping

from vlc.data.kinds import (
    ANSWERS,
    BOX_IDS,
    BOXES,
    IDENTIFIERS,
    LABELS,
    MOST_LABELS,
    NAMES,
    NUMBERS,
    OUTLINES,
    RELEVANCES,
    SCORES,
    TAGS,
    TAGS_OF_TEXTS,
    TEXTS,
    TRUTHS,
    one_of,
)
from vlc.data.spec import Column, DatasetSpec, ImageKey

# The column is a number, or the name of a file that ends in it.
_COCO, _VG, _FLICKR, _SAIAPR = (ImageKey("image_id", collection) for collection in ("coco", "vg", "flickr", "saiapr"))
_VCR = ImageKey("image_id", "vcr", numbered=False)

_IMAGE_ID = {"image_id": Column("image_id", IDENTIFIERS, per_text=False, optional=True)}  # of images with captions
_VQA_FIELDS = {
    "question_id": Column("question_id", IDENTIFIERS),
    "answer_labels": Column("answer_labels", LABELS),
    "answer_scores": Column("answer_scores", SCORES, beside="answer_labels"),
    "answers": Column("answers", ANSWERS, beside="answer_labels", optional=True),
    "question_type": Column("question_types", NAMES, optional=True),
    "answer_type": Column("answer_types", NAMES, optional=True),
}


_GQA_FIELDS = {
    **_VQA_FIELDS,
    "gold_answer": Column("gold_answers", NAMES, optional=True),
    "semantic_type": Column("semantic_types", NAMES, optional=True),
    "detailed_type": Column("detailed_types", NAMES, optional=True),
    "group": Column("groups", NAMES, optional=True),
    "entailed": Column("entailed", ANSWERS, optional=True),
    "balanced": Column("is_balanced", TRUTHS, optional=True),
}


def _gqa(writer: str, tables: dict[str, tuple[str, ...]], **options) -> DatasetSpec:
    return DatasetSpec(writer, tables, "questions", fields=_GQA_FIELDS, unique_texts=False, **options)


_NLVR2_FIELDS = {
    "truth": Column("answers", TRUTHS),
    # Published files name the pair of images alone; its sentences are numbered as they stand.
    "identifier": Column("identifiers", IDENTIFIERS, fallback=Column("identifier", IDENTIFIERS, False, numbered=True)),
    "statement_type": Column("statement_types", NAMES, optional=True),
}


_ENTAILMENT_FIELDS = {
    "label": Column("labels", one_of(3)),
    "pair_id": Column("pair_id", IDENTIFIERS),
    "statement_type": Column("statement_types", NAMES, optional=True),
}
_FOIL_FIELDS = {
    "label": Column("labels", one_of(2)),
    "caption_id": Column("caption_ids", IDENTIFIERS),
    "statement_type": Column("statement_types", NAMES, optional=True),
}


# In the form of Multi30k (Elliott et al. 2016): texts of several languages in each row, some of which translate each other.
_TRANSLATIONS = {
    "lang": Column("lang", TEXTS),
    "kind": Column("kind", TEXTS),
    "sent_idx": Column("sent_idx", NUMBERS),
    "second_text": Column("caption", TEXTS, of_second=True),
    "second_lang": Column("lang", TEXTS, of_second=True),
}


def _nlvr2(tables: dict[str, tuple[str, ...]], writer: str = "nlvr2", **options) -> DatasetSpec:
    images = ("image_0", "image_1")
    return DatasetSpec(writer, tables, "questions", images, fields=_NLVR2_FIELDS, unique_texts=False, **options)


# Boxes lie in the pixels of the stored picture, upright, which is `width` times `height`.
_PICTURE_FIELDS = {
    "width": Column("width", NUMBERS, per_text=False),
    "height": Column("height", NUMBERS, per_text=False),
}
# The candidates belong to the picture, and the expressions to some of them.
_REFERRING_FIELDS = {
    **_PICTURE_FIELDS,
    "boxes": Column("boxes", BOXES, per_text=False),
    "box_ids": Column("box_ids", BOX_IDS, per_text=False, optional=True, beside="boxes"),
    "target_boxes": Column("target_boxes", BOXES),
    "proposal_boxes": Column("proposal_boxes", BOXES, per_text=False, optional=True),  # of a detector
    "proposal_scores": Column("proposal_scores", SCORES, per_text=False, optional=True, beside="proposal_boxes"),
}
# Each text has candidates of its own, one of which is right.
_POINTING_FIELDS = {
    **_PICTURE_FIELDS,
    "boxes": Column("boxes", BOXES),
    "box_ids": Column("box_ids", BOX_IDS, optional=True, beside="boxes"),
    "answer_index": Column("answer_index", NUMBERS, index_of="boxes"),
}

_ORACLE_FIELDS = {
    **_PICTURE_FIELDS,
    "label": Column("labels", one_of(3)),
    "question_id": Column("question_id", IDENTIFIERS),
    "question_type": Column("question_types", NAMES, optional=True),
    "target_boxes": Column("target_boxes", BOXES),
    "second_text": Column("categories", TEXTS),
}


def _referring(writer: str, stem: str, splits: tuple[str, ...], test: tuple[str, ...] = (), **options) -> DatasetSpec:
    """Expressions that refer to a box of their image; without a test, every split is one whose name begins with test."""
    fields = {
        **_REFERRING_FIELDS,
        "answer_index": Column("answer_index", NUMBERS, index_of="boxes"),
        "sent_id": Column("sent_id", IDENTIFIERS),
        "ref_id": Column("ref_id", IDENTIFIERS),
        "ann_id": Column("ann_id", IDENTIFIERS),
        "image_id": Column("image_id", IDENTIFIERS, per_text=False),
    }
    tables = {split: (f"{stem}_{split}",) for split in splits}
    test = test or tuple(split for split in splits if split.startswith("test"))
    return DatasetSpec(writer, tables, "expressions", fields=fields, unique_texts=False, test=test, **options)


def _dialogues(name: str, num_options: int, splits: tuple[str, ...], **options) -> DatasetSpec:
    """Questions about an image, each with texts to choose the answer from, and with the rounds before it."""
    fields = {
        "options": Column("options", ANSWERS),
        "answer_index": Column("answer_index", one_of(num_options)),
        "relevance": Column("relevance", RELEVANCES, optional=True),
        "question_type": Column("question_types", NAMES, optional=True),
        "history": Column("history", ANSWERS),
        "caption": Column("caption", TEXTS, per_text=False),
        "round_id": Column("round_id", NUMBERS),
        "image_id": Column("image_id", IDENTIFIERS, per_text=False),
    }
    tables = {split: (f"{name}_{split}",) for split in splits}
    return DatasetSpec(name, tables, "questions", fields=fields, unique_texts=False, **options)


# Words of the texts name boxes of the picture.
_GROUNDED_FIELDS = {
    **_PICTURE_FIELDS,
    "boxes": Column("boxes", BOXES, per_text=False),
    "box_names": Column("box_names", ANSWERS, per_text=False, beside="boxes"),
    "question_type": Column("question_types", NAMES, optional=True),
}
_OUTLINES = {"outlines": Column("segms", OUTLINES, per_text=False)}


def _grounded_questions(
    name: str, splits: tuple[str, ...], more: Mapping[str, Column] | None = None, **options
) -> DatasetSpec:
    """Questions whose words name boxes of the picture, each with answers to choose from."""
    fields = {
        **_GROUNDED_FIELDS,
        **(more or {}),
        "text_tags": Column("question_tags", TAGS, tags_of="boxes"),
        "options": Column("answers", ANSWERS),
        "option_tags": Column("answer_tags", TAGS_OF_TEXTS, beside="answers", tags_of="boxes"),
        "answer_index": Column("answer_index", one_of(4)),
        "annot_id": Column("annot_id", IDENTIFIERS),
    }
    tables = {split: (f"{name}_{split}",) for split in splits}
    return DatasetSpec(name, tables, "questions", fields=fields, unique_texts=False, **options)


def _grounded_rationales(
    name: str, splits: tuple[str, ...], more: Mapping[str, Column] | None = None, **options
) -> DatasetSpec:
    """The same questions with a given answer, each with rationales to choose from."""
    fields = {
        **_GROUNDED_FIELDS,
        **(more or {}),
        "text_tags": Column("given_question_tags", TAGS, tags_of="boxes"),
        "given_answer": Column("given_answers", TEXTS),
        "given_answer_tags": Column("given_answer_tags", TAGS, tags_of="boxes"),
        "given_answer_index": Column("given_answer_index", NUMBERS),
        "options": Column("rationales", ANSWERS),
        "option_tags": Column("rationale_tags", TAGS_OF_TEXTS, beside="rationales", tags_of="boxes"),
        "answer_index": Column("rationale_index", one_of(4)),
        "annot_id": Column("given_annot_id", TEXTS),  # a test question has a text for each of its answers
    }
    tables = {split: (f"{name}_{split}",) for split in splits}
    return DatasetSpec(name, tables, "given_questions", fields=fields, unique_texts=False, **options)


# Sentences, each with a word that has several translations.
_LEXICAL_TRANSLATIONS = {
    "lang": Column("lang", TEXTS),
    "words": Column("words", TEXTS),
    "word_places": Column("word_places", NUMBERS),
    "target_lang": Column("target_lang", TEXTS),
    "translation": Column("translation", TEXTS),
    "acceptable": Column("acceptable", ANSWERS),
    "candidates": Column("candidates", ANSWERS),
    "most_frequent": Column("most_frequent", TEXTS),
}


def _of_multi30k(name: str, fields: dict[str, Column]) -> DatasetSpec:
    """Texts about the images of Multi30k, in its splits. The later test sets are evaluated where there are files."""
    later = ("test_2017_flickr", "test_2017_mscoco", "test_2018_flickr")
    test = ("test_2016_flickr", *later)
    return DatasetSpec(
        name,
        {split: (f"{name}_{split}",) for split in ("train", "val", *test)},
        fields=fields,
        unique_texts=False,
        test=test,
        optional=later,
        image_key=ImageKey("image_id", "flickr", {"test_2017_mscoco": "coco"}),
    )


def _captions(writer: str, train: tuple[str, ...], **options) -> DatasetSpec:
    """Captions for pre-training: a training split alone."""
    return DatasetSpec(writer, {"train": train}, validation=(), test=(), **options)


CATALOG: dict[str, DatasetSpec] = {
    # -- images with captions, with development and test splits (Karpathy's)
    "coco": DatasetSpec(
        "coco",
        {
            "train": ("coco_caption_karpathy_train", "coco_caption_karpathy_restval"),
            "val": ("coco_caption_karpathy_val",),
            "test": ("coco_caption_karpathy_test",),
        },
        fields=_IMAGE_ID,
        published={"val": ("coco_caption_karpathy_test",)},
        image_key=_COCO,
    ),
    "f30k": DatasetSpec(
        "f30k",
        {
            "train": ("f30k_caption_karpathy_train",),
            "val": ("f30k_caption_karpathy_val",),
            "test": ("f30k_caption_karpathy_test",),
        },
        published={
            "train": ("f30k_caption_karpathy_train", "f30k_caption_karpathy_val"),
            "val": ("f30k_caption_karpathy_test",),
        },
        image_key=_FLICKR,
    ),
    **{
        name: DatasetSpec(name, {split: (f"{name}_{split}",) for split in ("train", "val", "test")}, image_key=key)
        for name, key in (("coco_retrieval", _COCO), ("f30k_retrieval", _FLICKR))
    },
    "gcc": DatasetSpec(
        "gcc",
        {"train": ("conceptual_caption_train_*",), "val": ("conceptual_caption_val_*",)},
        test=(),
        own_images=True,
    ),
    # -- images with captions, training only
    "vg": _captions("vg", ("vg",), image_key=_VG),
    "sbu": _captions("sbu", ("sbu_*",), own_images=True),
    "pretrainVQA": _captions("pretrain_vqav2", ("pretrain_vqa_*",), image_key=_COCO),
    "pretrainOI": _captions("openimages", ("openimages_*",), own_images=True),
    "pretrainGQA": _captions("pretrain_gqa", ("pretrain_gqa_*",), image_key=_VG),
    "pretrainFlickr30k": _captions("pretrain_flickr30k", ("pretrain_flickr30k_train",), image_key=_FLICKR),
    "pretrainVGQA": _captions("pretrain_vg", ("pretrain_vg_*",), image_key=_VG),
    "captions": _captions("captions", ("captions_*",)),
    # -- texts alone
    "text": DatasetSpec(
        "text",
        {"train": ("text_*",), "val": ("text_val_*",)},
        text="text",
        images=(),
        unique_texts=False,
        test=("val",),
        optional=("val",),
    ),
    # -- questions
    "vqa": DatasetSpec(
        "vqav2",
        {
            "train": ("vqav2_train", "vqav2_trainable_val"),
            "val": ("vqav2_rest_val",),
            "test": ("vqav2_test",),
            "test-dev": ("vqav2_test-dev",),
        },
        text="questions",
        fields=_VQA_FIELDS,
        unique_texts=False,
        unlabelled=frozenset({"test", "test-dev"}),
        image_key=_COCO,
        from_training=("val",),
    ),
    "vgqa": DatasetSpec(
        "vgqa",
        {"train": ("vgqa_train",)},
        text="questions",
        fields=_VQA_FIELDS,
        unique_texts=False,
        validation=(),
        test=(),
        image_key=_VG,
    ),
    "vgqa_all": DatasetSpec(
        "vgqa --all",
        {"train": ("vgqa_all_train",), "val": ("vgqa_all_val",)},
        text="questions",
        fields=_VQA_FIELDS,
        unique_texts=False,
        test=("val",),
        image_key=_VG,
        cleaned=("train", "val"),  # as in 12-in-1, whose validation questions are about training images
    ),
    "gqa": _gqa(
        "gqa",
        {split: (f"gqa_{split}",) for split in ("train", "val", "testdev", "test", "challenge")},
        test=("testdev",),
        unlabelled=frozenset({"test", "challenge"}),
        image_key=_VG,
    ),
    "gqa_all": _gqa(
        "gqa --questions all",
        {split: (f"gqa_all_{split}",) for split in ("train", "val", "testdev", "test", "challenge", "submission")},
        test=("testdev",),
        unlabelled=frozenset({"test", "challenge", "submission"}),
        image_key=_VG,
    ),
    "gqa_trainval": _gqa(
        "gqa --questions trainval",
        {"train": ("gqa_trainval",), "minval": ("gqa_minval",)},
        validation=("minval",),
        test=("minval",),
        image_key=_VG,
        from_training=("minval",),
    ),
    # -- pairs of images
    "nlvr2": _nlvr2(
        {"train": ("nlvr2_train",), "dev": ("nlvr2_dev",), "test1": ("nlvr2_test1",)},
        validation=("dev",),
        test=("dev", "test1"),
        published_validation=("dev", "test1"),
        own_images=True,
    ),
    "nlvr2_subsets": _nlvr2(
        {name: (f"nlvr2_{name}",) for name in ("balanced_dev", "unbalanced_dev", "balanced_test1", "unbalanced_test1")},
        validation=(),
        test=("balanced_dev", "unbalanced_dev", "balanced_test1", "unbalanced_test1"),
        own_images=True,
    ),
    "snli_ve": DatasetSpec(
        "snli_ve",
        {"train": ("snli_train",), "dev": ("snli_dev",), "test": ("snli_test",)},
        text="sentences",
        fields=_ENTAILMENT_FIELDS,
        unique_texts=False,
        validation=("dev",),
        test=("dev", "test"),
        image_key=_FLICKR,
    ),
    "foil": DatasetSpec(
        "foil",
        {"train": ("foil_train",), "val": ("foil_val",), "test": ("foil_test",)},
        text="captions",
        fields=_FOIL_FIELDS,
        unique_texts=False,
        published={"train": ("foil_train", "foil_val"), "val": ("foil_test",)},
        image_key=_COCO,
        from_training=("val",),
    ),
    # -- dialogues
    "visdial": _dialogues(
        "visdial",
        100,
        ("train", "val", "test"),
        unlabelled=frozenset({"test"}),
        test=("val", "test"),
        image_key=ImageKey("image_id", "coco", {"val": "visdial", "test": "visdial"}),
    ),
    # -- texts in several languages
    "multi30k": _of_multi30k("multi30k", _TRANSLATIONS),
    "mlt": _of_multi30k("mlt", _LEXICAL_TRANSLATIONS),
    # -- boxes: expressions that refer to one of an image's
    "refcoco": _referring("refcoco", "refcoco", ("train", "val", "testA", "testB"), image_key=_COCO),
    "refcoco_google": _referring("refcoco --by google", "refcoco_google", ("train", "val", "test"), image_key=_COCO),
    "refcoco_plus": _referring("refcoco_plus", "refcoco_plus", ("train", "val", "testA", "testB"), image_key=_COCO),
    "refcocog": _referring("refcocog", "refcocog", ("train", "val", "test"), image_key=_COCO),
    "refcocog_google": _referring(
        "refcocog --by google --allow-overlap",
        "refcocog_google",
        ("train", "val"),
        image_key=_COCO,
        from_training=("val",),
    ),
    "refclef": _referring("refclef", "refclef", ("train", "val", "testA", "testB", "testC"), image_key=_SAIAPR),
    "refclef_berkeley": _referring(
        "refclef --by berkeley", "refclef_berkeley", ("train", "val", "test"), image_key=_SAIAPR
    ),
    "flickr_entities": DatasetSpec(
        "flickr_entities",
        {split: (f"flickr_entities_{split}",) for split in ("train", "val", "test")},
        "phrases",
        fields={
            **_REFERRING_FIELDS,
            "phrase_id": Column("phrase_id", IDENTIFIERS),
            "chain_id": Column("chain_id", IDENTIFIERS),
            "phrase_type": Column("phrase_types", NAMES, optional=True),
            "image_id": Column("image_id", IDENTIFIERS, per_text=False),
        },
        unique_texts=False,
        image_key=_FLICKR,
    ),
    # -- boxes to choose among
    "visual7w": DatasetSpec(
        "visual7w",
        {split: (f"visual7w_{split}",) for split in ("train", "val", "test")},
        text="questions",
        fields={
            **_POINTING_FIELDS,
            "question": Column("questions", TEXTS),
            "qa_id": Column("qa_id", IDENTIFIERS),
            "question_type": Column("question_types", NAMES, optional=True),
        },
        unique_texts=False,
        image_key=_VG,
    ),
    "guesswhat": DatasetSpec(
        "guesswhat",
        {split: (f"guesswhat_{split}",) for split in ("train", "valid", "test")},
        text="questions",
        fields={
            **_POINTING_FIELDS,
            "dialogue": Column("dialogue", ANSWERS),
            "box_names": Column("box_names", ANSWERS, beside="boxes"),
            "game_id": Column("game_id", IDENTIFIERS),
            "status": Column("status", TEXTS),
        },
        unique_texts=False,
        validation=("valid",),
        image_key=_COCO,
    ),
    "guesswhat_oracle": DatasetSpec(
        "guesswhat",
        {split: (f"guesswhat_oracle_{split}",) for split in ("train", "valid", "test")},
        text="questions",
        fields=_ORACLE_FIELDS,
        unique_texts=False,
        validation=("valid",),
        image_key=_COCO,
    ),
    # -- questions, answers and rationales about boxes
    "vcr_qa": _grounded_questions(
        "vcr", ("train", "val", "test"), _OUTLINES, unlabelled=frozenset({"test"}), test=("val", "test"), image_key=_VCR
    ),
    "vcr_qar": _grounded_rationales(
        "vcr", ("train", "val", "test"), _OUTLINES, unlabelled=frozenset({"test"}), test=("val", "test"), image_key=_VCR
    ),
    # -- images in classes
    "labelled_images": DatasetSpec(
        "imagenet",
        {"train": (), "val": ()},
        fields={"label": Column("label", one_of(MOST_LABELS), per_text=False)},
        test=("val",),
        labelled=True,
        own_images=True,
    ),
    # -- embedded data
    "emoji": DatasetSpec(
        "emoji",
        {"train": ("emoji_train",), "val": ("emoji_val",), "test": ("emoji_test",)},
        unique_texts=True,
        own_images=True,
    ),
    "emoji_compositional": DatasetSpec(
        "emoji",
        {
            "train": ("emoji_compositional_train",),
            "val": ("emoji_compositional_val",),
            "test": ("emoji_compositional_test",),
        },
        own_images=True,
    ),
    "emoji_scenes": DatasetSpec(
        "emoji_scenes",
        {split: (f"emoji_scenes_{split}",) for split in ("train", "val", "test", "held_out")},
        fields=_IMAGE_ID,
        test=("test", "held_out"),
        own_images=True,
    ),
    "emoji_scenes_text": DatasetSpec(
        "emoji_scenes",
        {split: (f"emoji_scenes_{split}",) for split in ("train", "val", "test", "held_out")},
        images=(),
        test=("test", "held_out"),
    ),
    "emoji_scenes_vqa": DatasetSpec(
        "emoji_scenes",
        {split: (f"emoji_scenes_{split}",) for split in ("train", "val", "test", "held_out")},
        text="questions",
        fields=_VQA_FIELDS,
        unique_texts=False,
        test=("test", "held_out"),
        own_images=True,
    ),
    "emoji_gqa": _gqa(
        "emoji_gqa",
        {split: (f"emoji_gqa_{split}",) for split in ("train", "val", "test", "held_out")},
        test=("test", "held_out"),
        own_images=True,
    ),
    "emoji_nlvr2": _nlvr2(
        {split: (f"emoji_nlvr2_{split}",) for split in ("train", "val", "test", "held_out")},
        writer="emoji_nlvr2",
        test=("test", "held_out"),
        own_images=True,
    ),
    "emoji_snli_ve": DatasetSpec(
        "emoji_snli_ve",
        {split: (f"emoji_snli_ve_{split}",) for split in ("train", "val", "test", "held_out")},
        text="sentences",
        fields=_ENTAILMENT_FIELDS,
        unique_texts=False,
        test=("test", "held_out"),
        own_images=True,
    ),
    "emoji_foil": DatasetSpec(
        "emoji_foil",
        {split: (f"emoji_foil_{split}",) for split in ("train", "val", "test", "held_out")},
        text="captions",
        fields=_FOIL_FIELDS,
        unique_texts=False,
        test=("test", "held_out"),
        own_images=True,
    ),
    "emoji_visdial": _dialogues(
        "emoji_visdial", 5, ("train", "val", "test", "held_out"), test=("test", "held_out"), own_images=True
    ),
    "emoji_refer": _referring(
        "emoji_refer", "emoji_refer", ("train", "val", "test", "held_out"), test=("test", "held_out"), own_images=True
    ),
    "emoji_pointing": DatasetSpec(
        "emoji_pointing",
        {split: (f"emoji_pointing_{split}",) for split in ("train", "val", "test", "held_out")},
        text="questions",
        fields={
            **_POINTING_FIELDS,
            "qa_id": Column("qa_id", IDENTIFIERS),
            "question_type": Column("question_types", NAMES, optional=True),
        },
        unique_texts=False,
        test=("test", "held_out"),
        own_images=True,
    ),
    "emoji_guess": DatasetSpec(
        "emoji_guess",
        {split: (f"emoji_guess_{split}",) for split in ("train", "val", "test", "held_out")},
        text="questions",
        fields={
            **_POINTING_FIELDS,
            "dialogue": Column("dialogue", ANSWERS),
            "game_id": Column("game_id", IDENTIFIERS),
            "status": Column("status", TEXTS),
        },
        unique_texts=False,
        test=("test", "held_out"),
        own_images=True,
    ),
    "emoji_languages": DatasetSpec(
        "emoji_languages",
        {split: (f"emoji_languages_{split}",) for split in ("train", "val", "test")},
        fields=_TRANSLATIONS,
        unique_texts=False,
        own_images=True,
    ),
    "emoji_translations": DatasetSpec(
        "emoji_translations",
        {split: (f"emoji_translations_{split}",) for split in ("train", "val", "test", "held_out")},
        fields=_TRANSLATIONS,
        unique_texts=False,
        test=("test", "held_out"),
        own_images=True,
    ),
    "emoji_mlt": DatasetSpec(
        "emoji_mlt",
        {split: (f"emoji_mlt_{split}",) for split in ("train", "val", "test", "held_out")},
        fields=_LEXICAL_TRANSLATIONS,
        unique_texts=False,
        test=("test", "held_out"),
        own_images=True,
    ),
    "emoji_vcr_qa": _grounded_questions(
        "emoji_vcr", ("train", "val", "test", "held_out"), test=("test", "held_out"), own_images=True
    ),
    "emoji_vcr_qar": _grounded_rationales(
        "emoji_vcr", ("train", "val", "test", "held_out"), test=("test", "held_out"), own_images=True
    ),
}
