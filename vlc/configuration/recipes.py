"""RECIPES: the named configs, one row each; config.py registers them. Pure data.

The names and values of `task_mlm_itm_mae`, `task_finetune_*_mae_randaug` and `step*` are the published ones.
"""

from typing import Any

OBJECTIVE_NAMES = ("itm", "mlm", "mae", "vqa", "nlvr2", "irtr", "itc")


def loss_weights(**weights: float) -> dict[str, float]:
    """Return the weights of all objectives, by default 0. A recipe has to state all, as Sacred merges dictionaries."""
    assert set(weights) <= set(OBJECTIVE_NAMES)
    return dict.fromkeys(OBJECTIVE_NAMES, 0) | weights


_FINETUNE = {
    "train_transform_keys": ["mae_randaug"],
    "val_transform_keys": ["mae_test"],
    "max_steps": None,
    "warmup_steps": 0.1,
    "draw_false_image": 0,
    "learning_rate": 1e-4,
    "is_pretrain": False,
}

# The published recipe also gives itm a weight of 0.5, only to build its head, which it does not train. Here the ranking
# head starts from the checkpoint's matching head without it.
_IRTR = {
    **_FINETUNE,
    "loss_names": loss_weights(irtr=1),
    "batch_size": 256,
    "max_epoch": 20,
    "draw_false_text": 15,
}

_VQA = {
    "datasets": ["vqa"],
    "loss_names": loss_weights(vqa=1),
    "batch_size": 256,
    "max_epoch": 10,
    "val_check_interval": 0.1,
    "lr_mult": 10,
}
_NLVR2 = {"datasets": ["nlvr2"], "loss_names": loss_weights(nlvr2=1), "batch_size": 128}

# ViLT's own recipes (Kim et al. 2021): images in nearly their own shape, the whole model at one rate.
_VILT = {
    "vit": "vit_base_patch32_384",
    "train_transform_keys": ["pixelbert"],
    "val_transform_keys": ["pixelbert"],
    "mask_ratio": 0.0,
}
_VILT_PRETRAIN = {
    **_VILT,
    "datasets": ["coco", "vg", "sbu", "gcc"],
    "loss_names": loss_weights(itm=1, mlm=1),
    "batch_size": 4096,
    "max_epoch": 10,
    "max_image_len": 200,
}
_VILT_FINETUNE = {**_FINETUNE, **_VILT, "max_epoch": 10, "layer_decay": 1.0}
_VILT_IRTR = {**_IRTR, **_VILT_FINETUNE, "get_recall_metric": True}
_VILT_RECIPES = {
    "mlm_itm": _VILT_PRETRAIN,
    "finetune_vqa": {**_VILT_FINETUNE, **_VQA},
    "finetune_nlvr2": {**_VILT_FINETUNE, **_NLVR2},
    "finetune_irtr_coco": {**_VILT_IRTR, "datasets": ["coco"]},
    "finetune_irtr_f30k": {**_VILT_IRTR, "datasets": ["f30k"]},
}

# A small model for the embedded data, in minutes on two cores of a CPU. Small batches take more steps in the same time,
# and learn more by it; decoding in the training process beats a worker that takes a core from it.
_EMOJI = {
    "vit": "mae_vit_tiny_patch16",
    "image_size": 64,
    "tokenizer": "emoji",
    "vocab_size": None,
    "max_text_len": 16,
    "drop_rate": 0.0,
    "train_transform_keys": ["mae_test"],
    "val_transform_keys": ["mae_test"],
    "batch_size": 32,
    "per_gpu_batchsize": 32,
    "num_workers": 0,
    "decay_power": 0.3,  # the rate stays high for long
    "warmup_steps": 0.05,
    "weight_decay": 0.05,
    "gradient_clip": 1.0,
}

_EMOJI_FINETUNE = {**_EMOJI, "draw_false_image": 0, "layer_decay": 1.0, "is_pretrain": False}
# What the rows of tasks do not say about the runs of small models: the steps, as these models see no epoch twice.
_OF_A_TASK = ("max_text_len", "batch_size", "train_transform_keys", "val_transform_keys")
_EMOJI_TASK = {key: value for key, value in _EMOJI.items() if key not in _OF_A_TASK} | {"layer_decay": 1.0}
_RERANKED_EMOJI_TASK = _EMOJI_TASK | {"rerank_k": 16}
_LARGE_EMOJI_TASK = _EMOJI_TASK | {"image_size": 96}  # scenes with boxes have nine cells, and not four

# Captions with images, and texts alone, in each step a batch of both (Su et al. 2020, VL-BERT).
_LOCK_STEP = {"mixing": "round_robin", "steps": "accumulate"}
_VLBERT_RATE = 2.56e-5  # 1e-7 for each of the 256 samples of a step

_STOP_AND_GO = {"mixing": "stop_and_go", "gap": 4, "task_tokens": True}
# The tasks of 12-in-1 (Lu et al. 2020), in the order of its command. The encoder has one rate, and the heads have 1e-4.
_12IN1 = {
    "tasks": [
        *("vqa", "vgqa", "visual7w", "irtr_mc4_coco", "irtr_mc4_f30k", "refcoco", "refcoco_plus", "refcocog"),
        *("nlvr2", "snli_ve", "gqa", "guesswhat"),
    ],
    "exp_name": "12in1",
    "multitask": {**_STOP_AND_GO, "resets": [6, 8]},
    "clean": {"exclude": "test"},
    "learning_rate": 2e-5,
    "vqa": {"learning_rate": 4e-5, "batch_size": 128},
    "nlvr2": {"learning_rate": 2e-5, "batch_size": 64},
    "layer_decay": 1.0,
    "lr_mult": 5,
    "max_epoch": 20,
    "warmup_steps": 0.1,
    "decay_power": 1,
    "optimizer": {"options": {"betas": [0.9, 0.999], "eps": 1e-6, "bias_correction": False}},
}
_12IN1_EMOJI = {
    **_LARGE_EMOJI_TASK,
    "tasks": [
        *("vqa_emoji", "gqa_emoji", "nlvr2_emoji", "snli_ve_emoji", "foil_emoji", "visdial_emoji", "irtr_mc4_emoji"),
        *("refer_emoji", "pointing_emoji", "guess_emoji"),
    ],
    "exp_name": "12in1_emoji",
    "multitask": _STOP_AND_GO,
    "learning_rate": 3e-4,
    "max_steps": 5_000,
}


def _finetuning(task: str, **values: Any) -> dict[str, dict[str, Any]]:
    """The recipe of a task whose row says the rest: batch size, learning rate, epochs, length of texts."""
    return {f"task_finetune_{task}": {"tasks": [task], "exp_name": f"finetune_{task}", **values}}


RECIPES: dict[str, dict[str, Any]] = {
    # -- task_: objectives, data and optimisation
    "task_mlm_itm_mae": {
        "exp_name": "mlm_itm_mae",
        "datasets": ["coco", "vg", "sbu", "gcc"],
        "train_transform_keys": ["mae"],
        "val_transform_keys": ["mae"],
        "image_size": 224,
        "loss_names": loss_weights(itm=1, mlm=1, mae=1),
        "batch_size": 4096,
        "max_epoch": 10,
        "mask_ratio": 0.6,
        "mae_weight": 1.0,
    },
    "task_finetune_vqa_mae_randaug": {**_FINETUNE, **_VQA, "exp_name": "finetune_vqa_randaug"},
    "task_finetune_nlvr2_mae_randaug": {**_FINETUNE, **_NLVR2, "exp_name": "finetune_nlvr2_randaug", "max_epoch": 20},
    "task_finetune_irtr_coco_mae_randaug": {**_IRTR, "exp_name": "finetune_irtr_coco_randaug", "datasets": ["coco"]},
    "task_finetune_irtr_f30k_mae_randaug": {
        **_IRTR,
        "exp_name": "finetune_irtr_f30k_randaug",
        "datasets": ["f30k"],
        "max_epoch": 10,
        "get_recall_metric": True,
    },
    "task_pretrain_captions_text": {
        "tasks": ["pretraining", "pretraining_text"],
        "exp_name": "pretrain_captions_text",
        "multitask": _LOCK_STEP,
        "mlm": {"word_by_word": True},
        "image_size": 224,
        "mask_ratio": 0.6,
        "batch_size": 128,  # of each task: 256 samples a step
        "learning_rate": _VLBERT_RATE,
        "pretraining": {"learning_rate": _VLBERT_RATE},
        "pretraining_text": {"learning_rate": _VLBERT_RATE},
        "max_steps": 250_000,  # ten times the captions of Conceptual Captions
        "warmup_steps": 16_000,
        "weight_decay": 1e-4,
        "gradient_clip": 10.0,
    },
    # From an English model, by load_path, to four languages. The rate is 1e-4 for 256 samples of a step.
    "task_pretrain_multi30k": {
        "tasks": ["pretraining_multi30k", "pretraining_multi30k_captions"],
        "exp_name": "pretrain_multi30k",
        "multitask": _LOCK_STEP,
        "image_size": 224,
        "mask_ratio": 0.6,
        "batch_size": 128,  # of each task: 256 samples a step
        "max_epoch": 20,
        "warmup_steps": 0.1,
    },
    "task_12in1": _12IN1,
    **_finetuning("gqa"),
    **_finetuning("vgqa"),
    **_finetuning("snli_ve"),
    **_finetuning("foil"),
    **_finetuning("visdial"),
    **_finetuning("vcr_qa"),
    **_finetuning("vcr_qar"),
    **_finetuning("irtr_mc4_coco"),
    **_finetuning("irtr_mc4_f30k"),
    **_finetuning("irtr_multi30k"),
    **_finetuning("irtr_multi30k_captions"),
    **_finetuning("translation_retrieval"),
    **_finetuning("translation_retrieval_image"),
    **_finetuning("refcoco"),
    **_finetuning("refcoco_box"),
    **_finetuning("refcoco_plus"),
    **_finetuning("refcoco_plus_box"),
    **_finetuning("refcocog"),
    **_finetuning("refcocog_box"),
    **_finetuning("refclef"),
    **_finetuning("refclef_box"),
    **_finetuning("flickr_entities"),
    **_finetuning("flickr_entities_box"),
    **_finetuning("visual7w"),
    **_finetuning("guesswhat"),
    **_finetuning("guesswhat_oracle"),
    **_finetuning("translation_multi30k", tokenizer="bert-base-multilingual-cased"),
    **_finetuning("caption_coco"),
    **_finetuning("mlt"),
    **{f"task_{name}": {**recipe, "exp_name": name} for name, recipe in _VILT_RECIPES.items()},
    **{
        f"task_{name}_randaug": {
            **recipe,
            "exp_name": f"{name}_randaug",
            "train_transform_keys": ["pixelbert_randaug"],
        }
        for name, recipe in _VILT_RECIPES.items()
    },
    "task_pretrain_emoji": {
        **_EMOJI,
        "exp_name": "pretrain_emoji",
        "datasets": ["emoji_scenes", "emoji"],
        "loss_names": loss_weights(itm=1, mlm=1, mae=1),
        "mlm_prob": 0.4,
        "mask_ratio": 0.25,
        "learning_rate": 5e-4,
        "max_steps": 1200,
    },
    "task_finetune_vqa_emoji": {
        **_EMOJI_FINETUNE,
        "exp_name": "finetune_vqa_emoji",
        "datasets": ["emoji_scenes_vqa"],
        "loss_names": loss_weights(vqa=1),
        "vqav2_label_size": 50,
        "learning_rate": 3e-4,  # what pre-training learnt is lost above 5e-4
        "max_steps": 1600,
    },
    "task_finetune_nlvr2_emoji": {
        **_EMOJI_FINETUNE,
        "exp_name": "finetune_nlvr2_emoji",
        "datasets": ["emoji_nlvr2"],
        "loss_names": loss_weights(nlvr2=1),
        "learning_rate": 2e-4,
        "max_steps": 500,
    },
    "task_pretrain_captions_text_emoji": {
        **_EMOJI_TASK,
        "tasks": ["pretraining_emoji", "pretraining_text_emoji"],
        "exp_name": "pretrain_captions_text_emoji",
        "multitask": _LOCK_STEP,
        "mask_ratio": 0.25,
        "max_steps": 1200,
    },
    "task_pretrain_translations_emoji": {
        **_EMOJI_TASK,
        "tasks": ["pretraining_translations_emoji"],
        "exp_name": "pretrain_translations_emoji",
        "mask_ratio": 0.25,
        "max_steps": 1600,
    },
    "task_12in1_emoji": _12IN1_EMOJI,
    **_finetuning("gqa_emoji", **_EMOJI_TASK, max_steps=2400),
    **_finetuning("snli_ve_emoji", **_EMOJI_TASK, max_steps=1200),
    **_finetuning("foil_emoji", **_EMOJI_TASK, max_steps=700),
    **_finetuning("visdial_emoji", **_EMOJI_TASK, max_steps=500),
    **_finetuning("irtr_mc4_emoji", **_EMOJI_TASK, max_steps=500),
    **_finetuning("irtr_languages_emoji", **_RERANKED_EMOJI_TASK, max_steps=1200),
    **_finetuning("irtr_names_emoji", **_EMOJI_TASK | {"per_gpu_batchsize": 128}, max_steps=600),
    **_finetuning("translation_retrieval_emoji", **_RERANKED_EMOJI_TASK, max_steps=1200),
    **_finetuning("translation_retrieval_image_emoji", **_RERANKED_EMOJI_TASK, max_steps=1200),
    **_finetuning("refer_emoji", **_LARGE_EMOJI_TASK, max_steps=2500),
    **_finetuning("pointing_emoji", **_LARGE_EMOJI_TASK, max_steps=2600),
    **_finetuning("guess_emoji", **_LARGE_EMOJI_TASK, max_steps=1600),
    **_finetuning("vcr_qa_emoji", **_LARGE_EMOJI_TASK, max_steps=1600),
    **_finetuning("vcr_qar_emoji", **_LARGE_EMOJI_TASK, max_steps=1600),
    **_finetuning("translation_emoji", **_EMOJI_TASK, max_steps=3000),
    **_finetuning("caption_emoji", **_EMOJI_TASK, max_steps=2000),
    **_finetuning("mlt_emoji", **_EMOJI_TASK, max_steps=800),
    # Contrast wants large batches, and learns pictures of single things faster from scratch than from scenes.
    "task_retrieval_emoji": {
        **_EMOJI,
        "exp_name": "retrieval_emoji",
        "datasets": ["emoji_compositional"],
        "loss_names": loss_weights(itc=1),
        "draw_false_image": 0,
        "batch_size": 128,
        "per_gpu_batchsize": 128,
        "learning_rate": 1e-3,
        "max_steps": 300,
        "is_pretrain": False,
    },
    # -- finetune_: beside a recipe of a task
    "finetune_from_12in1": {
        "multitask": {"task_tokens": True, "gap": 4},
        "warmup_steps": 0.1,
        "decay_power": 1,
    },
    # -- optim_: how the embedded data are learnt in fewer steps, each of which takes longer (Jordan et al. 2024)
    "optim_muon": {
        "optim_type": "muon",
        "optimizer": {"options": {"ns_steps": 4}},
        "learning_rate": 1e-3,
        "decay_power": 1,
    },
    # -- data_: which files
    "data_published_splits": {"published_splits": True},
    # -- the network
    "vit32_base": {"vit": "vit_base_patch32_384"},
    # -- step: how long
    "step25k": {"max_epoch": 100, "max_steps": 25_000},
    "step50k": {"max_epoch": 100, "max_steps": 50_000},
    "step100k": {"max_epoch": 100, "max_steps": 100_000},
    "step200k": {"max_epoch": 100, "max_steps": 200_000},
}
