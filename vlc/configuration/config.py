"""The configuration: the Sacred experiment, its defaults and named configs. Only this file and run.py know Sacred.

Values that follow from others (the sizes from `vit`) are derived in the defaults, so that they follow named configs and
`key=value` on the command line too. `vlc.configuration.settings` refuses contradictions.
"""

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from docopt import DocoptExit

from vlc.common.errors import UserError
from vlc.common.terminal import printable
from vlc.configuration import own_tasks
from vlc.configuration.aliases import under_flat_names
from vlc.configuration.config_files import check_value, load_config_file
from vlc.configuration.groups import NESTED
from vlc.configuration.recipes import RECIPES, loss_weights
from vlc.configuration.settings import check_given, check_keys, check_named, check_sources
from vlc.configuration.task_settings import (
    head_options,
    of_tasks,
    row_default,
    step_size,
    task_names,
    task_values,
    values_of_the_run,
    weights_of,
)
from vlc.configuration.use_settings import COMMANDS, PASS_ON, USE_KEYS
from vlc.model.sizes import ENCODERS

warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # Sacred 0.8.7 imports it

import sacred.arg_parser  # noqa: E402
import sacred.initialize  # noqa: E402
from sacred import Experiment  # noqa: E402
from sacred.config import ConfigDict  # noqa: E402
from sacred.run import Run  # noqa: E402
from sacred.utils import SacredError, convert_to_nested_dict  # noqa: E402

_USE = "use"  # in place of a command: the configuration of one that uses a checkpoint


class _Experiment(Experiment):
    """Sacred's experiment, with errors that say how to correct a command line or a value.

    used: the keys that the command has beside the keys of training runs, with their defaults.
    stored_rows: returns the rows of users' own tasks in a checkpoint; run.py sets it, as this room must not import torch.
    """

    used: Mapping[str, Any] = {}
    stored_rows: Callable[[str], Mapping[str, Any]] | None = None

    def _rows_of(self, given: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the checkpoints that a command line names, with their stored rows."""
        for key in ("load_path", "resume_from"):
            path = given.get(key)
            if self.stored_rows and isinstance(path, str) and Path(path).exists():
                yield path, self.stored_rows(path)

    def run_commandline(self, argv: list[str] | None = None) -> Run | None:
        try:
            return super().run_commandline(argv)
        except DocoptExit:
            print(f"run.py: {self._cure(list(argv or sys.argv)[1:])}", file=sys.stderr)
            sys.exit(1)

    def _check_command(self, cmd_name: str | None) -> str | None:
        error = super()._check_command(cmd_name)
        return error and f"run.py: {self._cure([cmd_name or ''])}"

    def _create_run(self, command_name=None, config_updates=None, *others, **options) -> Run:
        given, own = convert_to_nested_dict(config_updates or {}), self.configurations
        self.used = USE_KEYS if command_name in (*COMMANDS, _USE) else {}
        command_name = "print_config" if command_name == _USE else command_name
        with user_errors_without_traceback():
            if "tasks" in given:
                given["tasks"] = own_tasks.entered(given["tasks"], partial(self._rows_of, given))
            check_updates(given, self.used)
            updates = under_flat_names(given)
            if "tasks" in updates:
                updates["tasks"] = list(task_names(updates["tasks"]))
        try:
            self.configurations = [*own, ConfigDict(self.used)]
            run = super()._create_run(command_name, updates, *others, **options)
        finally:
            self.configurations = own
        with user_errors_without_traceback():
            named = _values_of(others[0] if others else options.get("named_configs", ()))
            nested = {key: value for one in (*named, given) for key, value in one.items() if isinstance(value, Mapping)}
            if command_name not in PASS_ON:
                check_given(set(given).union(*named), nested, run.config)
        return run

    def _cure(self, words: list[str]) -> str:
        """Say what is wrong with a command line that Sacred refuses, and how it should be."""
        commands = [name for name, _ in self.gather_commands()]
        first = words[0] if words else ""
        command, rest = (words[:1], words[1:]) if first in commands else ([], words)
        if "with" not in words and rest and (command or _is_configuration(first)):
            line = shlex.join(["python", "run.py", *command, "with", *rest])
            return printable(f"named configs and key=value stand behind the word with: {line}")
        near = get_close_matches(first, [*commands, "with", *RECIPES], n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        return printable(
            f"{shlex.join(words)} is no command.{hint} Expected python run.py [COMMAND] with NAMED_CONFIG ... key=value "
            f"...; the commands are {', '.join(commands)}"
        )


def _is_configuration(word: str) -> bool:
    return "=" in word or word in RECIPES or Path(word).is_file()


def _values_of(named_configs: Collection[str]) -> list[dict[str, Any]]:
    """Return the values of named configs and configuration files."""
    return [RECIPES.get(name) or load_config_file(name) for name in named_configs]


def check_updates(updates: Mapping[str, Any], others: Collection[str] = ()) -> None:
    """Raise UserError for values that cannot be combined with the defaults; others: further keys of the command."""
    for key, value in updates.items():
        check_value(key, value)
        if key in USE_KEYS and key not in others:
            raise UserError(f"Unknown config key {key!r}: only the commands {', '.join(COMMANDS)} have it")
    check_keys(updates, others)
    check_sources(updates)


def _load_named_config(path: str) -> dict[str, Any]:
    with user_errors_without_traceback():
        return convert_to_nested_dict(under_flat_names(load_config_file(path)))  # Sacred refuses names with dots


# Sacred's own functions would build the objects that a file, or a value, names.
sacred.initialize.load_config_file = _load_named_config
sacred.arg_parser.restore = lambda value: value

ex = _Experiment("VLC", save_git_info=False)
ex.doc = "Pre-train, fine-tune or test. `print_config` shows every key; README.md lists the named configs."


class RunError(SacredError):
    """A UserError on its way to the user: Sacred prints its text without a traceback."""


@contextmanager
def user_errors_without_traceback() -> Iterator[None]:
    """Turn UserErrors into messages without traceback; every other exception keeps its traceback."""
    try:
        yield
    except UserError as error:
        raise RunError(printable(error), print_traceback=False, filter_traceback="never", print_usage=False) from error


def _size(vit: str):
    """Return the encoder of a name. The settings report an unknown name, once the configuration is complete."""
    return ENCODERS.get(vit, ENCODERS["mae_vit_base_patch16"])


@ex.option_hook
def observe_the_first_process(options):
    """Have Sacred's observers record a run on rank 0 only; launchers set the rank in these variables."""
    numbers = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
    if any(number != "0" for number in numbers):
        options["--unobserved"] = True


@ex.config
def config():
    exp_name = "vlc"  # run name; part of the log folder's name
    seed = 0
    log_dir = "result"  # logs, checkpoints and predictions go below it

    # what is learnt
    tasks = []  # rows of vlc.tasks, learnt or tested together; [] = one task, which the keys below describe
    loss_names = weights_of(tasks) or loss_weights(itm=1, mlm=1)  # objective -> weight of its loss, 0 = off
    is_pretrain = row_default(tasks, "drops_patches", True, any)  # patches are dropped
    use_mae = loss_names["mae"] > 0  # follows from loss_names
    mae_weight = 1.0  # further weight of the reconstruction loss
    wpa_weight = 0.1  # weight of word-patch alignment inside itm, 0 = off
    mlm_prob = 0.15  # share of tokens that mlm hides
    whole_word_masking = False  # mlm hides whole words, drawn as the published code draws them
    draw_false_image = 1  # wrong images for itm, each sample: 1, or 0 without itm
    false_image_source = "batch"  # where they come from: batch (nothing more to decode), dataset
    draw_false_text = 0  # wrong texts, each sample
    hard_negatives = False  # train on the wrong images and texts of the batch that loss_names.itc finds similar
    vqav2_label_size = 3129  # number of answers
    get_recall_metric = False  # rank all images against all texts at each validation (of irtr always when it is tested)
    rerank_k = 128  # beside itc: how many of the nearest the full model ranks again, None = all
    save_scores = False  # keep the scores of a tested ranking as float16

    # options of the objectives: the keys above are other names of most, and follow them
    mlm = {"probability": mlm_prob, "whole_words": whole_word_masking, "word_by_word": False, "one_segment": 0.0}
    mae = {"weight": mae_weight}
    itm = {"alignment_weight": wpa_weight, "wrong_images": draw_false_image, "source": false_image_source}
    itc = {"hard_negatives": hard_negatives}
    ttm = head_options(loss_names, "ttm", tasks)
    ttc = head_options(loss_names, "ttc", tasks)
    answers = head_options(loss_names, "answers", tasks) | {"num_answers": vqav2_label_size}
    classes = head_options(loss_names, "classes", tasks)
    choice = head_options(loss_names, "choice", tasks) | {"wrong_texts": draw_false_text}
    image_classes = head_options(loss_names, "image_classes", tasks)
    pointing = head_options(loss_names, "pointing", tasks)
    regress = head_options(loss_names, "regress", tasks)
    generation = head_options(loss_names, "generation", tasks)
    words = head_options(loss_names, "words", tasks)
    locals().update(own_tasks.options())

    # each of the tasks: what differs from the options and keys of the run
    locals().update(task_values(tasks, locals()))

    # dictionaries of keys
    locals().update({name: asdict(group()) for name, group in NESTED.items()})

    # data
    data_root = ""  # folder of the arrow files, or its URL (s3://..., gs://..., file://...) beside data_cache
    data_cache = None  # folder that the files of a URL are copied to before they are read
    datasets = of_tasks(tasks, locals(), "datasets") or ["coco", "vg", "sbu", "gcc"]  # their training sets are joined
    dataset_weights = None  # shares of the data sets in training, a number for each; None = all samples of all
    published_splits = False  # validate on the files the published code validated on (test data among them)
    verify = None  # compare our files with their checksums when they are read: True, False; None = in evaluation
    splits = None  # those that test_only evaluates (None = the test splits), or that index reads (None = all)
    train_transform_keys = ["mae"]  # image pipeline, such as mae, mae_randaug, mae_test, keep_shape_flip or pixelbert
    val_transform_keys = ["mae"]
    image_size = 384  # pixels, square; of pixelbert's images the shorter side
    image_only = row_default(tasks, "image_only", False, all)  # read no texts
    max_image_len = -1  # patches that training with learned positions keeps of an image, drawn at random; -1 = all
    max_text_len = of_tasks(tasks, locals(), "max_text_len") or 40  # tokens with [CLS] and [SEP]
    tokenizer = "bert-base-uncased"  # hub name, local folder, or emoji (embedded)
    vocab_size = 30522 if tokenizer == "bert-base-uncased" else None  # None = the tokenizer's
    max_corrupt_ratio = 0.01  # share of undecodable training images above which a run fails

    # network
    vit = "mae_vit_base_patch16"  # an encoder, such as mae_vit_tiny_patch16 or dinov2_vit_base_patch14_reg
    patch_size = _size(vit).patch_size  # pixels; follows from vit
    hidden_size = _size(vit).width  # follows from vit
    num_heads = _size(vit).heads  # follows from vit
    num_layers = _size(vit).depth  # follows from vit
    mlp_ratio = _size(vit).mlp_ratio  # follows from vit
    mask_ratio = 0.0 if _size(vit).learned_grid else 0.75  # share of patches dropped where is_pretrain
    drop_rate = 0.1  # dropout of the text embedding; of ViLT's encoder everywhere
    compile = False  # compile the encoder's blocks and the alignment: slower to start, faster where it fuses (GPUs)
    activation_checkpointing = False  # keep no activations of the encoder's blocks: less memory, a forward pass more
    pretrain_path = ""  # checkpoint, file of another ViT, or timm:NAME to start from, first
    load_path = ""  # checkpoint to start from, or to test

    # optimiser and schedule
    optim_type = "adamw"  # adamw, adam, sgd, radam, adamw_torch (torch's defaults, as MAE fine-tunes), or one of timm
    learning_rate = of_tasks(tasks, locals(), "learning_rate") or 1e-4
    weight_decay = 0.01
    layer_decay = 1.0 if is_pretrain else 0.5  # learning-rate factor from one layer to the one below
    lr_mult = 1  # learning-rate factor of task heads, where layer_decay is 1
    decay_power = 1  # power of the polynomial decay, or cosine; schedule.kind names other schedules
    end_lr = 0  # the polynomial decays to it
    warmup_steps = 0.1 if tasks else 2500  # a float is a share of all steps
    max_epoch = row_default(tasks, "epochs", 100)  # counts where max_steps is None
    max_steps = None if tasks else 25000  # optimiser steps
    gradient_clip = 0.0  # largest gradient norm, 0 = no clipping
    batch_size = step_size(
        tasks, locals()
    )  # over all devices; gradients accumulate to reach it; None = each task's own

    # machine
    per_gpu_batchsize = of_tasks(tasks, locals(), "per_gpu_batchsize") or 0  # of one device; must be given
    num_gpus = 1  # number, or list of device numbers; 0, or no GPU there = CPU
    num_nodes = 1
    fsdp = False  # share weights, gradients and optimiser state out over the devices, for large and huge
    num_workers = 1  # loader processes for each device; auto = as many as a measurement at the start shows to be needed
    precision = 16  # 16 = bfloat16, else float16, where the device computes it, otherwise float32; 32; 16-mixed, ...

    # run
    resume_from = None  # checkpoint of an interrupted run; auto = the newest last.ckpt of this exp_name, if any
    checkpoint_every = None  # optimiser steps from one last.ckpt to the next; None = every 30 minutes, and validations
    test_only = False
    fast_dev_run = False  # one batch of everything, nothing written
    val_check_interval = 1.0  # epochs (float) or training batches (int) from one validation to the next


for name, values in RECIPES.items():
    ex.add_named_config(name, values)


@ex.config_hook
def reject_unknown_keys(config, command_name, logger):
    with user_errors_without_traceback():
        check_keys(config, ex.used)
        check_named(config)
        return values_of_the_run(config)


def given_keys(run: Run) -> set[str]:
    """Return the keys that a command line states, directly or in its named configs and files."""
    return set(run.meta_info["config_updates"]).union(*_values_of(run.meta_info["named_configs"]))


def resolve(*named_configs: str, **updates) -> dict:
    """Return the configuration of `run.py with NAMED_CONFIGS... key=value...`."""
    return ex._create_run("print_config", updates, named_configs).config


def resolve_use(*named_configs: str, **updates) -> tuple[dict, set[str]]:
    """Return the configuration of a command that uses a checkpoint, and the given keys. Raises UserError."""
    try:
        run = ex._create_run(_USE, updates, named_configs)
    except RunError as error:
        raise error.__cause__ or error from None
    return run.config, given_keys(run)
