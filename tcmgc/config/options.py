"""Base class for the options of a method's exchangeable parts, and how they become a module.

A family (heads, temporal encoders, token operations, loss terms) is a direct subclass of
:class:`Kind`; its kinds are frozen dataclasses that subclass the family. Nothing here imports
torch, so a command line can be parsed and documented without it.
"""

import importlib
from typing import Any, ClassVar


def require(condition: bool, message: str) -> None:
    """Raise a ValueError unless the condition holds."""
    if not condition:
        raise ValueError(message)


class Kind:
    """Options of one kind of a part; each subclass registers under its class name in its family."""

    module: ClassVar[str] = ""
    """Import path of the class that these options build: ``package.module:Class``."""
    kinds: ClassVar[dict[str, type]] = {}
    """All kinds of the family by name."""
    default: ClassVar[str] = ""
    """The kind that is used if a file names none."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        if Kind in cls.__bases__:
            cls.kinds = {}
        else:
            cls.kinds[cls.__name__] = cls

    def implementation(self) -> Any:
        """The class that these options build."""
        module, _, name = self.module.partition(":")
        return getattr(importlib.import_module(module), name)
