"""file_format=program: graphs as programs of torch.export, which torch loads without this package."""

from pathlib import Path

import torch

from vlc.common.files import to_json
from vlc.use.export.companions import description, write_companions
from vlc.use.export.graphs import graphs_of, tell_left_out, traced
from vlc.use.model import Model


def write_programs(model: Model, folder: Path) -> None:
    """Write NAME.pt2 for each graph. `torch.export.load("NAME.pt2").module()` is a function of its inputs."""
    graphs, left_out = graphs_of(model)
    for graph in graphs:
        about = {"vlc.json": to_json(description(graph))}
        torch.export.save(traced(graph), folder / f"{graph.name}.pt2", extra_files=about)
    write_companions(model, graphs, folder, script=False)
    tell_left_out(left_out)
