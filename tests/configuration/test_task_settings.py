"""Tasks and options of objectives in the configuration: nested names, their flat aliases, and what is refused."""

import json

import pytest

from vlc.common.errors import UserError
from vlc.configuration.aliases import ALIASES
from vlc.configuration.config import RunError, ex, resolve
from vlc.configuration.groups import NESTED
from vlc.configuration.settings import Settings, config_keys
from vlc.objectives.options import OPTIONS, AnswersOptions, ClassesOptions, MLMOptions

# Keys are never added here: a new option belongs to an objective or a task, under its nested name.
FLAT_KEYS = """
activation_checkpointing batch_size checkpoint_every compile data_cache data_root dataset_weights datasets decay_power
draw_false_image draw_false_text drop_rate end_lr exp_name false_image_source fast_dev_run fsdp get_recall_metric
gradient_clip hard_negatives hidden_size image_only image_size is_pretrain layer_decay learning_rate load_path log_dir
loss_names lr_mult mae_weight mask_ratio max_corrupt_ratio max_epoch max_image_len max_steps max_text_len mlm_prob
mlp_ratio num_gpus num_heads num_layers num_nodes num_workers optim_type patch_size per_gpu_batchsize precision
pretrain_path published_splits rerank_k resume_from save_scores seed splits tasks test_only tokenizer
train_transform_keys use_mae val_check_interval val_transform_keys verify vit vocab_size vqav2_label_size warmup_steps
weight_decay whole_word_masking wpa_weight
""".split()


def _settings(*named: str, **values) -> Settings:
    config = resolve(*named, per_gpu_batchsize=4, **values)
    settings = Settings.from_config(config)
    assert settings.as_config() == config, "what a checkpoint stores is the whole configuration"
    return settings


def test_flat_keys_are_frozen():
    assert set(config_keys()) - set(OPTIONS) - set(NESTED) == set(FLAT_KEYS)


@pytest.mark.parametrize("key", ALIASES)
def test_a_flat_key_and_its_option_have_one_value(key):
    kind, option = ALIASES[key]
    config = resolve()
    assert config[kind][option] == config[key] == getattr(OPTIONS[kind](), option)
    other = "dataset" if config[key] == "batch" else config[key] + 1
    kinds = {"itc": "itc", "answers": "vqa", "choice": "irtr", "mae": "mae"}
    losses = {"loss_names": {kinds[kind]: 1}} if kind in kinds else {}
    for given in ({key: other}, {f"{kind}.{option}": other}):
        config = resolve(**given, **losses)
        assert config[kind][option] == config[key] == other


def test_a_nested_option_wins_over_the_named_config(tmp_path):
    assert _settings("task_pretrain_emoji").options["mlm"].probability == 0.4
    assert _settings("task_pretrain_emoji", **{"mlm.probability": 0.3}).options["mlm"].probability == 0.3
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"mlm": {"probability": 0.2}}))
    assert _settings("task_pretrain_emoji", str(path)).options["mlm"].probability == 0.2
    assert _settings("task_pretrain_emoji", str(path), mlm_prob=0.1).options["mlm"].probability == 0.1


def test_the_flat_keys_describe_one_task():
    (task,) = _settings("task_finetune_nlvr2_mae_randaug").tasks
    (head,) = task.heads
    assert (task.name, head.name, head.kind, head.weight) == ("", "nlvr2", "classes", 1)
    assert head.options == ClassesOptions(
        ("False", "True"), 2, labels="truth", ids="identifier", described_by=("statement_type",)
    )
    assert task.metric(head, "dev", "accuracy") == "nlvr2/dev/accuracy"
    assert task.file(head, "dev") == "nlvr2_dev"


def test_a_task_brings_its_keys():
    settings = _settings(tasks="[vqa]")
    (task,) = settings.tasks
    assert (task.name, [head.name for head in task.heads]) == ("vqa", ["vqa"])
    assert settings.data.datasets == task.datasets == ("vqa",)
    assert settings.model.objectives == {"vqa": 1}
    assert (settings.optim.max_epoch, settings.optim.max_steps, settings.optim.batch_size) == (10, None, 256)
    assert (settings.optim.layer_decay, settings.model.is_pretrain) == (0.5, False)
    assert task.metric(task.heads[0], "val", "score") == "vqa/val/score"


@pytest.mark.parametrize(
    ("tasks", "is_pretrain", "image_only"),
    [
        (["pretraining", "vqa"], True, False),
        (["vqa", "nlvr2"], False, False),
        (["image_classification", "vqa"], False, False),
        (["image_classification"], False, True),
    ],
)
def test_the_order_of_tasks_does_not_decide_what_is_read(tasks, is_pretrain, image_only):
    for order in (tasks, tasks[::-1]):
        settings = _settings(tasks=order)
        assert (settings.model.is_pretrain, settings.data.image_only) == (is_pretrain, image_only)


def test_what_is_given_changes_the_task():
    (task,) = _settings(tasks=["vqa"], **{"vqa.learning_rate": 2e-5, "vqa.answers.num_answers": 7}).tasks
    assert (task.learning_rate, task.heads[0].options) == (2e-5, AnswersOptions(7))
    assert _settings(tasks=["vqa"], **{"vqa.learning_rate": 2e-5}).optim.learning_rate == 2e-5
    (task,) = _settings(tasks=["vqa"], learning_rate=3e-5, **{"answers.num_answers": 8}).tasks
    assert (task.learning_rate, task.heads[0].options) == (3e-5, AnswersOptions(8))
    (task,) = _settings(tasks=["irtr_coco"]).tasks
    assert task.options("choice").wrong_texts == 15


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("1-2-4", ["vqa", "vgqa", "visual7w"]),
        (7, ["irtr_mc4_coco"]),
        ("17", ["guesswhat"]),
        ([1, "12", "foil_emoji"], ["vqa", "nlvr2", "foil_emoji"]),
        ("[refcoco+, VCR_Q-A, RetrievalFlickr30k]", ["refcoco_plus", "vcr_qa", "irtr_mc4_f30k"]),
    ],
)
def test_published_names_stand_for_tasks(given, names):
    assert [task.name for task in _settings(tasks=given).tasks] == names


def test_published_numbers_on_the_command_line():
    config = ex.run_commandline(["run.py", "print_config", "with", "tasks=1-2-4-7", "per_gpu_batchsize=1"]).config
    assert config["tasks"] == ["vqa", "vgqa", "visual7w", "irtr_mc4_coco"]


def test_a_published_name_belongs_to_one_task(tmp_path):
    text = 'from vlc.tasks import Task\n\nTASKS = {"mine": Task({"answers": 1}, ("vqa",), published=("7",))}\n'
    (tmp_path / "mine_seven.py").write_text(text)
    with pytest.raises(RunError, match=r"line 3: mine.published='7' .* the task irtr_mc4_coco does not have"):
        _settings(tasks=f"[{tmp_path / 'mine_seven.py'}]")


def test_the_recipe_of_twelve_tasks():
    settings = _settings("task_12in1")
    multitask, optim = settings.multitask, settings.optim
    assert (multitask.mixing, multitask.gap, multitask.resets) == ("stop_and_go", 4, (6, 8))
    assert multitask.task_tokens
    assert (optim.max_epoch, optim.max_steps, optim.warmup_steps, optim.decay_power) == (20, None, 0.1, 1)
    rates = {task.name: task.learning_rate for task in settings.tasks}
    assert {name for name, rate in rates.items() if rate == 4e-5} == {"vqa", "vgqa", "gqa"}
    assert set(rates.values()) == {2e-5, 4e-5}
    assert optim.learning_rate == 2e-5
    assert settings.data.max_text_len == 256, "the table of positions holds the longest dialogue"
    heads = [head.name for task in settings.tasks for head in task.heads]
    assert len(set(heads)) == 8, "12-in-1 shares heads likewise"


def test_tasks_with_one_kind_of_objective_keep_their_own_options():
    tasks = {task.name: task for task in _settings(tasks=["nlvr2", "snli_ve", "irtr_coco", "visdial"]).tasks}
    assert [tasks[name].options("classes").images for name in ("nlvr2", "snli_ve")] == [2, 1]
    assert [tasks[name].options("choice").wrong_texts for name in ("irtr_coco", "visdial")] == [15, 0]
    tasks = _settings(tasks=["nlvr2", "snli_ve"], **{"classes.loss": "bce"}).tasks
    assert [task.options("classes").loss for task in tasks] == ["bce", "bce"]


def test_captions_and_texts_share_their_head_and_way_of_hiding():
    for name in ("task_pretrain_captions_text", "task_pretrain_captions_text_emoji"):
        settings = _settings(name)
        captions, texts = settings.tasks
        assert captions.kinds["mlm"] == texts.kinds["mlm"]
        assert (settings.multitask.mixing, settings.multitask.steps) == ("round_robin", "accumulate")
        assert captions.learning_rate == texts.learning_rate == settings.optim.learning_rate
        assert texts.composer == "packed"
    assert _settings("task_pretrain_captions_text").tasks[1].options("mlm") == MLMOptions(word_by_word=True)


def test_a_recipe_of_a_task_goes_on_from_the_twelve():
    settings = _settings("task_finetune_vcr_qa", "finetune_from_12in1")
    assert (settings.multitask.task_tokens, settings.multitask.gap) == (True, 4)
    assert [task.name for task in settings.tasks] == ["vcr_qa"]


def test_several_tasks_have_their_own_keys():
    settings = _settings(tasks=["vqa", "vgqa", "nlvr2"], vqa={"datasets": ["vqa", "vgqa"], "max_text_len": 50})
    assert [[head.name for head in task.heads] for task in settings.tasks] == [["vqa"], ["vqa"], ["nlvr2"]]
    assert [task.max_text_len for task in settings.tasks] == [50, 26, 40]
    assert settings.data.max_text_len == 50, "the table of positions is that of the longest"
    assert settings.data.datasets == ("vqa", "vgqa", "vgqa_all", "nlvr2")


def test_the_metrics_of_a_task_with_several_heads_name_the_head():
    (task,) = _settings(tasks=["pretraining"]).tasks
    assert task.metric(task.kinds["mlm"], "val", "accuracy") == "pretraining/val/mlm_accuracy"
    assert task.file(task.kinds["mlm"], "val") == "pretraining_mlm_val"


@pytest.mark.parametrize(
    ("named", "values", "message"),
    [
        ((), {"tasks": ["vqaa"]}, "Unknown task 'vqaa'. Did you mean vqa"),
        ((), {"tasks": "[vqaa]"}, "Unknown task 'vqaa'. Did you mean vqa"),
        ((), {"tasks": 3.5}, r"tasks=3.5 is not valid: expected a list of names, as in \[.*vqa,.*nlvr2"),
        ((), {"tasks": True}, r"tasks=True is not valid: expected a list of names"),
        ((), {"tasks": 99}, r"tasks=99 is not valid: expected published numbers out of 1 \(vqa\), 2 \(vgqa\), 3"),
        ((), {"tasks": "1-99"}, r"tasks='1-99' is not valid: expected published numbers out of 1 \(vqa\)"),
        ((), {"tasks": "[refcoco*]"}, r"Unknown task 'refcoco\*'. Did you mean refcoco"),
        ((), {"tasks": "[refcoco+,10]"}, "tasks=.* is not valid: expected each name once"),
        ((), {"tasks": ["vqa", "vqa"]}, "tasks=.* is not valid: expected each name once"),
        ((), {"vqa.learning_rate": 1e-3}, r"vqa.learning_rate is given, but tasks=\[\] lacks vqa: add it there"),
        ((), {"tasks": ["vqa"], "vqa": 3}, "vqa=3 is not valid: expected values by key, as in vqa.learning_rate"),
        ((), {"tasks": ["vqa"], "vqa.lr": 3}, "Unknown key of task vqa 'lr'.*learning_rate"),
        ((), {"tasks": ["vqa"], "vqa.answers.num": 3}, "Unknown option of vqa.answers 'num'.*num_answers"),
        ((), {"tasks": ["vqa"], "vqa.objectives.answers": 0}, "vqa.objectives={} is not valid: expected at least one"),
        ((), {"tasks": ["vqa"], "vqa.datasets": []}, r"vqa.datasets=\(\) is not valid: expected at least one data set"),
        ((), {"tasks": ["vqa"], "vqa.datasets": ["x"]}, "vqa.datasets='x' is not valid: expected names out of coco"),
        ((), {"tasks": ["vqa"], "vqa.max_text_len": "x"}, "max_text_len='x' is not valid: expected a whole number"),
        ((), {"tasks": ["vqa"], "vqa.max_text_len": 2}, "vqa.max_text_len=2 is not valid: expected room for"),
        ((), {"tasks": ["vqa"], "vqa.answers.num_answers": 0}, r"^vqa\.answers\.num_answers=0 is not valid"),
        ((), {"tasks": ["gqa"], "gqa.answers.loss": "mse"}, r"^gqa\.answers\.loss='mse' is not valid"),
        ((), {"tasks": ["visdial"], "visdial.choice.drawn": 1}, r"^visdial\.choice\.drawn=1 is not valid"),
        (
            (),
            {"tasks": ["irtr_coco"], "irtr_coco.choice.wrong_texts": 0},
            r"^irtr_coco\.objectives\.choice needs texts of other images, but irtr_coco\.choice\.wrong_texts=0",
        ),
        ((), {"tasks": ["vqa"], "datasets": ["vqa"]}, "tasks=.* and datasets are both given.*pass vqa.datasets"),
        (("task_finetune_nlvr2",), {"tasks": ["vqa"]}, "tasks=.* are both given, but each task has its own"),
        (
            (),
            {"tasks": ["vqa", "vqa_emoji"]},
            r"tasks vqa and vqa_emoji share the head vqa, but differ in answers.num_answers \(3129 and 50\)",
        ),
        (
            (),
            {"tasks": ["vqa"], "learning_rate": 1e-3, "vqa.learning_rate": 1e-4},
            "learning_rate=0.001 and vqa.learning_rate=0.0001 are two names of the same value",
        ),
        ((), {"multitask.task_tokens": True}, "no named task has the heads of this run: pass tasks="),
        (
            (),
            {"tasks": ["image_classification"], "multitask.task_tokens": True},
            "image_only=True reads none: leave one of them out",
        ),
        ((), {"mlm.prob": 0.3}, "Unknown option of mlm 'prob'. Did you mean probability"),
        ((), {"mlm": 3}, "mlm=3 is not valid: expected options by name, as in mlm.probability="),
        (
            (),
            {"mlm.probability": 0.3, "mlm_prob": 0.2},
            "mlm_prob=0.2 and mlm.probability=0.3 are two names of the same",
        ),
        ((), {"mlm.probability": "much"}, "mlm_prob='much' is not valid: expected a number"),
        (
            ("task_finetune_vqa_emoji",),
            {"mlm.probability": 0.3},
            r"mlm.probability is given, but the objective mlm is not active \(answers are\): give it a weight",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_with_the_cure(named, values, message):
    with pytest.raises((UserError, RunError), match=message):
        _settings(*named, **values)
