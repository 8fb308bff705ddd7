"""Lets a CUDA build of torchvision import beside a CPU-only torch.

torchvision describes its operators `nms` and `qnms` to torch while it is imported. Where its compiled library cannot be
loaded (it wants CUDA libraries that a CPU-only torch does not bring), these operators do not exist and the import fails,
and with it timm's, torchmetrics' and Lightning's. Declaring the two schemas first is enough for its pure-Python parts.
Calling the operators themselves still fails, and nothing here needs them.
"""

import importlib.abc
import importlib.machinery
import sys
from pathlib import Path

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[object] = []  # a Library takes its declarations with it when it is garbage collected


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Runs `declare_missing_ops` before torchvision is first imported; it never finds a module itself."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            declare_missing_ops()
        return None


def install() -> None:
    """Have the operators declared when torchvision is imported, without importing torch now."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _BeforeTorchvision) for f in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())


def declare_missing_ops() -> None:
    """Declare torchvision's operators to torch if, and only if, its compiled library cannot be loaded."""
    package = _package()
    if package is None or _compiled_library_loads(package):
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)


def has_compiled_operators() -> bool:
    """Whether torchvision's compiled library is there and can be loaded."""
    package = _package()
    return package is not None and _compiled_library_loads(package)


def _package() -> Path | None:
    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    return Path(spec.origin).parent if spec and spec.origin else None


def _compiled_library_loads(package: Path) -> bool:
    import torch

    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    candidates = [path for suffix in suffixes if (path := package / f"_C{suffix}").exists()]
    if not candidates:
        return False
    try:
        torch.ops.load_library(candidates[0])
    except OSError:
        return False
    return True
