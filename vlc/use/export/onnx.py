"""file_format=onnx: graphs as ONNX files, with a script that answers by them without torch and this package."""

import logging
from pathlib import Path
from typing import Any

import torch

from vlc.common.errors import UserError
from vlc.use.export.companions import description, write_companions
from vlc.use.export.graphs import Graph, graphs_of, tell_left_out, traced
from vlc.use.model import Model

OPSET = 18  # the operators that torch's exporter writes without converting them
OUTPUT = "values"
# The names of free axes by input.
AXES: dict[str, dict[int, str]] = {
    "ids": {0: "batch", 1: "length"},
    "mask": {0: "batch", 1: "length"},
    "image": {0: "batch"},
    "size": {0: "batch"},
}


def write_onnx(model: Model, folder: Path) -> None:
    """Write NAME.onnx for each graph, with what answer.py needs. Raises UserError where a package is missing."""
    require_onnx()
    graphs, left_out = graphs_of(model)
    for graph in graphs:
        write_graph(graph, folder / f"{graph.name}.onnx")
    write_companions(model, graphs, folder, script=True)
    tell_left_out(left_out)


def require_onnx() -> None:
    """Raise UserError where onnx or onnxscript is missing."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'file_format=onnx needs packages that are not installed ({error}): pip install -e ".[onnx]"'
        ) from error


def write_graph(graph: Graph, path: Path) -> None:
    """Write a graph as an ONNX file. Weights of more than 1.5 GB lie beside it, in PATH.data."""
    for name in ("onnx_ir", "onnxscript"):  # each tells of every constant that it folds, and Sacred shows it
        logging.getLogger(name).setLevel(logging.ERROR)
    written = torch.onnx.export(
        traced(graph),
        input_names=list(graph.inputs),
        output_names=[OUTPUT],
        opset_version=OPSET,
        verbose=False,
        custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
    )
    assert written is not None
    free: dict[Any, str] = {}
    for value in written.model.graph.inputs:
        assert value.name is not None
        assert value.shape is not None
        free |= {value.shape[axis]: name for axis, name in AXES[value.name.removesuffix("_2")].items()}
    written.rename_axes(free)
    written.model.metadata_props.update({name: str(value) for name, value in description(graph).items()})
    written.save(path)


def _stable_sort(values, stable: bool = True, dim: int = -1, descending: bool = False):
    """Sort as torch does, which the exporter lacks: of equal values, ONNX's TopK takes the first ones first."""
    from onnxscript import opset18 as op

    size: Any = op.Gather(op.Shape(values), op.Constant(value_int=dim))  # type: ignore[type-var]  # an INT64 each
    count: Any = op.Reshape(size, op.Constant(value_ints=[1]))  # type: ignore[arg-type]
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)
