"""Options of token operations: what a method does to the tokens inside the visual tower."""

from dataclasses import dataclass
from typing import ClassVar

from tcmgc.config.options import Kind


class TokenOptions(Kind):
    """Options of an operation on tokens inside the visual tower."""

    default: ClassVar[str] = "NoTokens"
    gives: ClassVar[tuple[str, ...]] = ()
    """What the tower gives then besides frames: ``patches``."""


@dataclass(frozen=True, kw_only=True)
class NoTokens(TokenOptions):
    """The tower as it is: a frame's feature is its class token's."""
