"""Parameter groups, AdamW and schedules, against the published ones."""

import json

import pytest
import torch

from tests import golden_models
from vlc.checkpoint.formats import VLC_RELEASE
from vlc.common.errors import UserError
from vlc.configuration.groups import OptimSettings
from vlc.configuration.recipes import loss_weights
from vlc.training.optim import AdamW, build_optimizer, build_schedule, layer_decay_groups, plain_groups


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


def test_end_rate_above_the_rate_is_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1e-3)
    with pytest.raises(UserError, match="end_lr=0.1 must be below learning_rate"):
        build_schedule(optimizer, _settings(end_lr=0.1), 20)
