import torch
from pytorch_lightning import Trainer

from vlc.hardware.precision import precision_options


def _plugin(precision: str):
    return Trainer(accelerator="cpu", logger=False, **precision_options(precision, "cpu")).precision_plugin


def test_weights_are_cast_once_for_all_passes_of_a_step():
    layer, inputs = torch.nn.Linear(4, 3), torch.randn(2, 4)
    with torch.autograd.profiler.profile() as profile, _plugin("bf16-mixed").forward_context():
        outputs = [layer(inputs) for _ in range(3)]
    names = [event.name for event in profile.function_events]
    assert names.count("aten::_to_copy") == 2 + 3  # weight and bias once, the inputs for each pass
    assert all(output.dtype == torch.bfloat16 for output in outputs)


def test_a_pass_without_gradients_does_not_take_them_from_the_next():
    layer, inputs = torch.nn.Linear(4, 3), torch.randn(2, 4)
    with _plugin("bf16-mixed").forward_context():
        with torch.no_grad():
            layer(inputs)
        layer(inputs).float().sum().backward()
    assert torch.allclose(layer.weight.grad, inputs.bfloat16().float().sum(0).expand(3, -1), atol=1e-2)


def test_full_precision_is_left_to_lightning():
    assert precision_options("32-true", "cpu") == {"precision": "32-true"}
    with _plugin("32-true").forward_context():
        assert torch.nn.Linear(4, 3)(torch.randn(2, 4)).dtype == torch.float32
