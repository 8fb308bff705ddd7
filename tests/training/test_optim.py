"""Parameter groups, AdamW and schedules, against the published ones."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import golden_models
from vlc.checkpoint.formats import VLC_RELEASE
from vlc.common.errors import UserError
from vlc.configuration.groups import OptimizerSettings, OptimSettings, ScheduleSettings
from vlc.configuration.recipes import loss_weights
from vlc.training.optim import (
    AdamW,
    PlateauSchedule,
    build_optimizer,
    build_schedule,
    check_optimizer,
    freeze,
    layer_decay_groups,
    plain_groups,
    with_own_rates,
)


def _settings(**values) -> OptimSettings:
    defaults = {
        "optim_type": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "layer_decay": 0.5,
        "lr_mult": 1,
        "decay_power": 1,
        "end_lr": 0,
        "warmup_steps": 0,
        "max_epoch": 1,
        "max_steps": 20,
        "gradient_clip": 0.0,
        "batch_size": 1,
    }
    return OptimSettings(**(defaults | values))


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("pretrain", {"mlm": 1, "itm": 1, "mae": 1}),
        ("vqa", {"vqa": 1}),
        ("vqa_vanilla_lrmult10", {"vqa": 1}),
        ("nlvr2", {"nlvr2": 1}),
        ("irtr", {"irtr": 1}),
    ],
)
def test_parameter_groups_are_the_published_ones(golden, name, weights):
    published = json.loads((golden / f"optim/param_groups_{name}.json").read_text())
    settings = _settings(
        learning_rate=published["base_lr"], weight_decay=published["weight_decay"], lr_mult=published["lr_mult"]
    )
    module = golden_models.build_module(golden_models.model_settings(loss_names=loss_weights(**weights)))
    if published["is_pretrain"]:
        groups = plain_groups(module, settings, module._task_head_parameters())
    else:
        groups = layer_decay_groups(module, settings)
    names = {parameter: name for name, parameter in module.named_parameters()}
    ours = {names[parameter]: group for group in groups for parameter in group["params"]}
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert set(ours) == trainable
    for parameter, group in ours.items():
        expected = published["params"][VLC_RELEASE.theirs(parameter)]
        assert group["lr"] / published["base_lr"] == pytest.approx(expected["lr_mult"]), parameter
        assert group["weight_decay"] == expected["weight_decay"], parameter


def test_only_the_published_classifiers_take_the_rate_of_heads_and_the_temperature_does_not_decay():
    settings = _settings(lr_mult=10, weight_decay=0.01)
    weights = loss_weights(vqa=1, irtr=1, itc=1, itm=1, mlm=1)
    module = golden_models.build_module(golden_models.model_settings(loss_names=weights))
    names = {parameter: name for name, parameter in module.named_parameters()}
    groups = {
        names[parameter]: group
        for group in plain_groups(module, settings, module._task_head_parameters())
        for parameter in group["params"]
    }
    fast = {name for name, group in groups.items() if group["lr"] == pytest.approx(1e-2)}
    assert fast == {name for name in groups if name.startswith("objectives.vqa.classifier.")}
    assert groups["objectives.itc.log_scale"]["weight_decay"] == 0
    assert groups["objectives.itc.image_projection.weight"]["weight_decay"] == 0.01
    assert groups["objectives.irtr.rank_output.weight"]["lr"] == pytest.approx(1e-3)


@pytest.mark.parametrize("fused", [None, True])
def test_adamw_steps_are_the_published_ones(golden, fused):
    steps = torch.load(golden / "optim/adamw_steps.pt", weights_only=True)
    parameters = [torch.nn.Parameter(steps[f"param{i}_step0"].clone()) for i in range(3)]
    rates, decays = (1e-2, 2e-2, 1e-2), (0.1, 0.0, 0.01)
    groups = [
        {"params": [p], "lr": rate, "weight_decay": decay}
        for p, rate, decay in zip(parameters, rates, decays, strict=True)
    ]
    optimizer = AdamW(groups, lr=1e-2, fused=fused)
    for step in range(1, 6):
        for i, parameter in enumerate(parameters):
            parameter.grad = steps[f"grad{i}_step{step}"].clone()
        optimizer.step()
        for i, parameter in enumerate(parameters):
            torch.testing.assert_close(parameter.detach(), steps[f"param{i}_step{step}"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("prefix", "optim_type", "options"),
    [
        ("RAdam", "radam", {"betas": (0.9, 0.999)}),
        ("AdamW_nobias", "adamw", {"betas": (0.9, 0.999), "eps": 1e-6, "bias_correction": False}),
    ],
)
@pytest.mark.parametrize("fused", [None, True])
def test_steps_of_12in1s_optimizers(golden, prefix, optim_type, options, fused):
    steps = np.load(golden / "tasks/optim/optim_steps.npz")
    parameters = [torch.nn.Parameter(torch.tensor(steps[f"{prefix}.p{i}.0"])) for i in range(2)]
    settings = _settings(learning_rate=1e-2, optim_type=optim_type, optimizer=OptimizerSettings(options))
    optimizer = build_optimizer([{"params": parameters, "lr": 1e-2, "weight_decay": 0.01}], settings, fused=fused)
    for step in range(1, 9):
        for i, parameter in enumerate(parameters):
            parameter.grad = torch.tensor(steps[f"{prefix}.g{i}.{step}"])
        optimizer.step()
        for i, parameter in enumerate(parameters):
            expected = torch.tensor(steps[f"{prefix}.p{i}.{step}"])
            torch.testing.assert_close(parameter.detach(), expected, atol=1e-9, rtol=1e-6)
    assert optimizer.param_groups[0]["lr"] == 1e-2


def test_adamw_resumes_where_it_stopped():
    def run(num_steps: int, optimizer=None, parameter=None, state=None):
        parameter = torch.nn.Parameter(torch.ones(3)) if parameter is None else parameter
        optimizer = AdamW([{"params": [parameter], "lr": 0.1, "weight_decay": 0.1}], lr=0.1)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(num_steps):
            parameter.grad = parameter.detach() * 0.5
            optimizer.step()
        return parameter, optimizer

    whole, _ = run(6)
    half, optimizer = run(3)
    resumed, _ = run(3, parameter=half, state=optimizer.state_dict())
    assert torch.equal(whole, resumed)


@pytest.mark.parametrize(
    ("optim_type", "kind"), [("adamw", AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_optimizers_by_name(optim_type, kind):
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1e-3, "weight_decay": 0.0}]
    assert type(build_optimizer(groups, _settings(optim_type=optim_type))) is kind


@pytest.mark.parametrize("optim_type", ["lion", "nadamw", "adafactor", "lamb", "radamlegacy", "momentum"])
def test_optimizers_of_timm_by_name(optim_type):
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    groups = [{"params": [parameter], "lr": 1e-2, "weight_decay": 0.1}]
    optimizer = build_optimizer(groups, _settings(optim_type=optim_type), fused=True)
    parameter.grad = torch.ones(4, 4)
    optimizer.step()
    assert (parameter < 1).all()
    assert optimizer.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize(
    ("optim_type", "options", "message"),
    [
        ("adamv", {}, "Unknown optim_type 'adamv'. Did you mean .*adamw"),
        ("adahessian", {}, "optim_type=adahessian needs second derivatives"),
        ("fusedadam", {}, "optim_type=fusedadam cannot be used here: "),
        ("sgd", {"momentun": 0.5}, "Unknown option of optim_type=sgd 'momentun'. Did you mean momentum"),
        ("sgd", {"betas": [0.9, 0.99]}, "Unknown option of optim_type=sgd 'betas'"),
        ("adam", {"lr": 0.1}, "Unknown option of optim_type=adam 'lr'"),
        (
            "adamw",
            {"betas": [0.9, 2]},
            r"optimizer.options={'betas': \[0.9, 2\]} do not suit optim_type=adamw: Invalid beta",
        ),
        ("lion", {"betas": "x"}, "optimizer.options={'betas': 'x'} do not suit optim_type=lion: "),
    ],
)
def test_unknown_optimizers_and_options_are_refused(optim_type, options, message):
    with pytest.raises(UserError, match=message):
        check_optimizer(_settings(optim_type=optim_type, optimizer=OptimizerSettings(options)))


def test_options_reach_the_optimizer():
    settings = _settings(optim_type="sgd", optimizer=OptimizerSettings({"momentum": 0.5, "nesterov": True}))
    optimizer = build_optimizer([{"params": [torch.nn.Parameter(torch.ones(1))], "weight_decay": 0.0}], settings)
    assert optimizer.defaults["momentum"] == 0.5
    assert optimizer.defaults["nesterov"]


@pytest.fixture
def module():
    return golden_models.build_module(golden_models.model_settings(loss_names=loss_weights(vqa=1)))


@pytest.mark.parametrize("groups_of", [plain_groups, layer_decay_groups])
def test_rates_by_name_split_the_groups(module, groups_of):
    heads = [module._task_head_parameters()] if groups_of is plain_groups else []
    groups = groups_of(module, _settings(lr_mult=10), *heads)
    names = {parameter: name for name, parameter in module.named_parameters()}
    rates = {"classifier": 4.0, "encoder.blocks<1": 0.5, r"\.bias$": 2.0}
    before = {names[one]: group for group in groups for one in group["params"]}
    after = {names[one]: group for group in with_own_rates(groups, module, rates) for one in group["params"]}
    assert after.keys() == before.keys()
    for name, group in after.items():
        factor = 4.0 ** ("classifier" in name) * 0.5 ** ("encoder.blocks.0." in name) * 2.0 ** name.endswith(".bias")
        assert group["lr"] == before[name]["lr"] * factor, name
        assert group["weight_decay"] == before[name]["weight_decay"]
    assert with_own_rates(groups, module, {}) == groups


def test_frozen_parameters_take_no_part(module):
    freeze(module, ["text_embeddings", "blocks<1"])
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    expected = ("encoder.text_embeddings.", "encoder.blocks.0.")
    assert frozen == {name for name, _ in module.named_parameters() if name.startswith(expected)}
    trained = {one for group in layer_decay_groups(module, _settings()) for one in group["params"]}
    assert trained == {parameter for parameter in module.parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            ["text_embedings"],
            r"optimizer.frozen=\['text_embedings'\] matches no parameter of the model.*text_embeddings",
        ),
        (["blocks<0"], r"optimizer.frozen=\['blocks<0'\] matches no parameter"),
        (["("], r"optimizer.frozen=\['\('\] is no regular expression"),
        (["encoder", "objectives"], "leaves no parameter to train"),
    ],
)
def test_mistakes_in_names_of_parameters_are_told(module, patterns, message):
    with pytest.raises(UserError, match=message):
        freeze(module, patterns)
    if "no parameter to" not in message:
        with pytest.raises(UserError, match=message.replace(r"frozen=\['", "rates.").replace(r"'\]", "=2")):
            with_own_rates([], module, dict.fromkeys(patterns, 2))


def test_schedules_are_the_published_ones(golden):
    published = json.loads((golden / "optim/lr_schedules.json").read_text())
    for name, case in published.items():
        settings = _settings(learning_rate=case["base_lr"], **_schedule(name))
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=case["base_lr"])
        schedule = build_schedule(optimizer, settings, 20)
        rates = []
        for _ in case["values"]:
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert rates == pytest.approx(case["values"], rel=1e-6, abs=1e-12), name


def _schedule(name: str) -> dict:
    """The settings that a stored schedule's name tells: KIND[_powerN][_endE]_warmW_total20 or KIND_warm_fraction_F_..."""
    values: dict = {}
    for part in name.split("_"):
        if part == "cosine":
            values["decay_power"] = "cosine"
        elif part.startswith("power"):
            values["decay_power"] = float(part.removeprefix("power"))
        elif part.startswith("end"):
            values["end_lr"] = float(part.removeprefix("end"))
        elif part.startswith("0."):
            values["warmup_steps"] = float(part)
        elif part.startswith("warm") and part != "warm":
            values["warmup_steps"] = int(part.removeprefix("warm"))
    return values


def _rates(settings: OptimSettings, num_steps: int, num_rates: int) -> list[float]:
    """The rates in force at the first steps of a schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=settings.learning_rate)
    schedule, rates = build_schedule(optimizer, settings, num_steps), []
    for _ in range(num_rates):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("name", "schedule", "warmup"),
    [
        ("triangle", {"kind": "linear"}, 5),
        ("triangle_no_warmup", {"kind": "linear"}, 0),
        ("triangle", {"kind": "polynomial"}, 5),
        ("warmup_constant", {"kind": "constant"}, 5),
        ("cosine", {"kind": "cosine"}, 5),
        ("cosine_hard_restarts3", {"kind": "cosine_restart", "cycles": 3}, 5),
        ("step_linear0", {"kind": "step", "milestones": (20, 30)}, 8),
        ("step_linear0", {"kind": "step", "milestones": (0.5, 0.75)}, 0.2),
        ("step_linear_third", {"kind": "step", "milestones": (20, 30), "warmup_start": 1 / 3}, 8),
        ("step_constant", {"kind": "step", "milestones": (20, 30), "warmup": "constant", "warmup_start": 1 / 3}, 8),
    ],
)
def test_schedules_by_kind_are_those_of_vlbert(golden, name, schedule, warmup):
    published = json.loads((golden / "tasks/optim/lr_schedules.json").read_text())
    settings = _settings(learning_rate=published["base_lr"], warmup_steps=warmup, schedule=ScheduleSettings(**schedule))
    expected = published["values"][name]
    assert _rates(settings, 40, len(expected)) == pytest.approx(expected, rel=1e-12, abs=1e-18)


def _of_the_loop(golden, case: str, schedule: dict, *, longer: int = 0) -> tuple[list[float], list[float]]:
    """Our rates of each round, and the published rates of the first task of each iteration.

    longer: the steps by which our schedule is longer than the loop.
    """
    published = json.loads((golden / "tasks/optim/train_loop_schedules.json").read_text())[case]
    argv, num_steps = published["argv"], published["iterations"]
    share = float(argv[argv.index("--warmup_proportion") + 1]) if "--warmup_proportion" in argv else 0.1
    warmup = int(share * num_steps) if longer else share
    settings = _settings(learning_rate=2e-5, warmup_steps=warmup, schedule=ScheduleSettings(**schedule))
    return _rates(settings, num_steps + longer, num_steps), [rates[0] for rates in published["rates"]]


def test_the_linear_schedule_is_that_of_12in1s_first_task(golden):
    ours, published = _of_the_loop(golden, "schedule_warmup_linear", {"kind": "linear"})
    assert ours == pytest.approx(published, rel=1e-12)


@pytest.mark.parametrize(("case", "faulty"), [("schedule_mannul", {0, 7}), ("schedule_mannul_long_warmup", {0, 7, 14})])
def test_step_is_12in1s_schedule_without_its_full_rates_in_the_warm_up(golden, case, faulty):
    ours, published = _of_the_loop(golden, case, {"kind": "step", "milestones": (0.5, 0.7), "factor": 0.2})
    warmup = 7 if case == "schedule_mannul" else 17.5
    for step, (rate, theirs) in enumerate(zip(ours, published, strict=True)):
        if step in faulty:  # each began an epoch of 7 steps
            assert theirs == 2e-5
            assert rate == pytest.approx(2e-5 * step / warmup, rel=1e-12)
        else:
            assert rate == pytest.approx(theirs, rel=1e-12), step


@pytest.mark.parametrize("case", ["schedule_cosine", "schedule_cosine_warm"])
@pytest.mark.parametrize("kind", ["cosine", "cosine_restart"])
def test_the_published_cosines_end_too_late_by_their_warm_up(golden, case, kind):
    ours, published = _of_the_loop(golden, case, {"kind": kind}, longer=7)
    first = case == "schedule_cosine_warm"  # its first step had the full rate
    assert ours[first:] == pytest.approx(published[first:], rel=1e-12)
    own, _ = _of_the_loop(golden, case, {"kind": kind})
    assert own[0] == 0
    assert own[:8] == pytest.approx(ours[:8], rel=1e-12)
    assert own[-1] < 1e-3 * 2e-5 < published[-1]


def test_cosine_ends_at_its_end_rate_where_the_kind_names_it():
    settings = _settings(end_lr=1e-4, decay_power="cosine")
    assert _rates(settings, 20, 21)[-1] == 0
    assert _rates(replace(settings, schedule=ScheduleSettings("cosine")), 20, 21)[-1] == pytest.approx(1e-4)


def _plateau(**values) -> tuple[torch.optim.Optimizer, PlateauSchedule]:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in (1.0, 0.5)]
    optimizer = torch.optim.SGD(groups)
    settings = _settings(learning_rate=1.0, schedule=ScheduleSettings("plateau", factor=0.5, **values), warmup_steps=2)
    schedule = build_schedule(optimizer, settings, 10)
    assert isinstance(schedule, PlateauSchedule)
    return optimizer, schedule


def test_plateau_lowers_the_rates_after_validations_that_do_not_improve_and_keeps_its_state():
    optimizer, schedule = _plateau(cooldown=1)

    def rates_after(metric: float) -> list[float]:
        schedule.validated(metric)
        rates = [group["lr"] for group in optimizer.param_groups]
        optimizer.step()
        schedule.step()
        return rates

    assert [rates_after(metric) for metric in (0.1, 0.2)] == [[0, 0], [0.5, 0.25]]  # the warm-up
    assert [rates_after(metric)[0] for metric in (0.2, 0.2, 0.2, 0.2)] == [1, 0.5, 0.5, 0.5]  # the third in a cooldown
    state = torch.load(
        _saved({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}), weights_only=True
    )
    expected = [rates_after(metric) for metric in (0.2, 0.20005, 0.3, 0.3, 0.3)]
    assert expected == [[0.25, 0.125]] * 4 + [[0.125, 0.0625]]
    optimizer, schedule = _plateau(cooldown=1)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    assert [rates_after(metric) for metric in (0.2, 0.20005, 0.3, 0.3, 0.3)] == expected


def _saved(state: dict) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_plateau_continues_a_schedule_of_another_kind():
    optimizer, schedule = _plateau()
    other = build_schedule(torch.optim.SGD(optimizer.param_groups, lr=1.0), _settings(learning_rate=1.0), 10)
    schedule.load_state_dict(other.state_dict() | {"last_epoch": 5})
    assert schedule.last_epoch == 5


def test_end_rate_above_the_rate_is_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1e-3)
    with pytest.raises(UserError, match="end_lr=0.1 must be below learning_rate"):
        build_schedule(optimizer, _settings(end_lr=0.1), 20)
