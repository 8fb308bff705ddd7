"""file_format=int8: the ONNX files with the weights of linear layers as 8-bit integers, for CPUs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from vlc.common.errors import UserError
from vlc.use.export.companions import write_companions
from vlc.use.export.graphs import graphs_of, tell_left_out
from vlc.use.export.onnx import require_onnx, write_graph
from vlc.use.model import Model


def write_int8(model: Model, folder: Path) -> None:
    """Write what `write_onnx` writes, a quarter as large. Raises UserError where a package is missing.

    Weights are rounded by output channel. Inputs of each linear layer are rounded when it is computed, by their own range,
    so that no calibration is needed (onnxruntime's dynamic quantisation).
    """
    require_onnx()
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise UserError(
            'file_format=int8 needs onnxruntime, which is not installed: pip install -e ".[onnx]"'
        ) from error
    graphs, left_out = graphs_of(model)
    for graph in graphs:
        with TemporaryDirectory(dir=folder) as scratch, _without_advice():
            whole, folded = Path(scratch, "whole.onnx"), Path(scratch, "folded.onnx")
            write_graph(graph, whole)
            quant_pre_process(whole, folded, skip_symbolic_shape=True)  # weights that are computed become constants
            quantize_dynamic(
                folded,
                folder / f"{graph.name}.onnx",
                weight_type=QuantType.QInt8,
                per_channel=True,
                extra_options={"MatMulConstBOnly": True},  # the products of attention stay as they are
            )
    write_companions(model, graphs, folder, script=True)
    tell_left_out(left_out)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Hide what onnxruntime advises by the root logger: to do what is done here."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
