"""Containers that declare the class of their modules."""

from collections.abc import ItemsView, ValuesView
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Modules(nn.ModuleDict, Generic[ModuleT]):
    """A ModuleDict whose modules are of one class; torch itself declares them as any module."""

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> ModuleT: ...

        def items(self) -> ItemsView[str, ModuleT]: ...

        def values(self) -> ValuesView[ModuleT]: ...
