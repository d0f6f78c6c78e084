"""The C++ library's structs, and a check that both sides have the same layout."""

import ctypes
from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from tcmgc.config import GRAINS


class Struct(ctypes.Structure):
    """A struct with the same name in C++."""

    @classmethod
    def members(cls) -> Iterator[tuple[str, tuple[int, int]]]:
        """Offset and size of each member, and of the struct."""
        yield cls.__name__, (0, ctypes.sizeof(cls))
        for name, *_ in cls._fields_:
            member = getattr(cls, name)
            yield f"{cls.__name__}.{name}", (member.offset, member.size)


def _fields(
    kind: type[ctypes._SimpleCData], names: str
) -> list[tuple[str, type[ctypes._SimpleCData]]]:
    return [(name, kind) for name in names.split()]


class Sizes(Struct):
    """Sizes of a call."""

    _fields_: ClassVar = [
        *_fields(ctypes.c_int64, "texts queries columns heads frames videos dim threads"),
        *_fields(ctypes.c_float, "attended_eps mixed_eps"),
    ]


class Contrasts(Struct):
    """How products become scores."""

    _fields_: ClassVar = [
        *_fields(
            ctypes.c_int64,
            "words kept_words kept_frames whole local "
            "video_word sentence_frame frame_word_words frame_word_frames masked count "
            + " ".join(f"to_{grain}" for grain in GRAINS),
        ),
        ("temperature", ctypes.c_float),
    ]


class Record(Struct):
    """Addresses and strides of a record's tensors."""

    _tensors = ("keys", "bias", "outputs", "attended", "mixed", "output", "mask")
    _fields_: ClassVar = [
        *_fields(ctypes.c_void_p, " ".join(_tensors)),
        *_fields(ctypes.c_int64, " ".join(f"{name}_apart" for name in _tensors)),
        ("half", ctypes.c_int64),
    ]


class Pointers(Struct):
    """A struct that consists of pointers to tensors, each item of which is contiguous."""

    @classmethod
    def to(cls, **tensors: Tensor | None) -> "Pointers":
        """Pointers to these tensors, which the caller must keep alive."""
        for name, tensor in tensors.items():
            assert tensor is None or not len(tensor) or tensor[0].is_contiguous(), name
        return cls(
            **{
                name: None if tensor is None else tensor.data_ptr()
                for name, tensor in tensors.items()
            }
        )


class Aggregations(Pointers):
    """Matrices of ISA and Bi-ISA."""

    _fields_: ClassVar = _fields(
        ctypes.c_void_p,
        "video_word sentence_frame first_frames then_words first_words then_frames",
    )


class Texts(Pointers):
    """The texts' side of the comparison."""

    _fields_: ClassVar = _fields(ctypes.c_void_p, "queries columns constant_side bias_side")


class Products(Pointers):
    """The two large matrix products."""

    _fields_: ClassVar = _fields(ctypes.c_void_p, "logits sides")


class Rest(Pointers):
    """Inputs of the block other than the two products."""

    _fields_: ClassVar = _fields(
        ctypes.c_void_p, "attended mixed output offset constant_side bias_side"
    )


class Grown(Pointers):
    """Destinations of gradients."""

    _fields_: ClassVar = _fields(
        ctypes.c_void_p, "logits sides attended mixed output constant_side bias_side"
    )


class Pairs(Struct):
    """Sizes of a call for words and frames."""

    _fields_: ClassVar = _fields(ctypes.c_int64, "texts words videos frames dim threads apart half")


class MaxInteraction(Pointers):
    """Words, frames, weights and masks."""

    _fields_: ClassVar = _fields(
        ctypes.c_void_p, "words frames word_weights frame_weights word_mask frame_mask"
    )


class ProductAttention(Pointers):
    """Words, frames, and the matrices of attention over their products."""

    _fields_: ClassVar = _fields(
        ctypes.c_void_p, "words frames first_words then_frames first_frames then_words"
    )


class _Member(ctypes.Structure):
    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("offset", ctypes.c_int64),
        ("size", ctypes.c_int64),
    ]


STRUCTS: tuple[type[Struct], ...] = (
    *(Sizes, Contrasts, Aggregations, Texts, Record, Products, Rest, Grown),
    *(Pairs, MaxInteraction, ProductAttention),
)


def check(library: ctypes.CDLL, path: str) -> None:
    """Raise a RuntimeError if a library's structs differ from these."""
    count = ctypes.c_int64()
    library.tcmgc_members.restype = ctypes.POINTER(_Member)
    found = library.tcmgc_members(ctypes.byref(count))
    theirs = {found[i].name.decode(): (found[i].offset, found[i].size) for i in range(count.value)}
    ours = dict(member for struct in STRUCTS for member in struct.members())
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise RuntimeError(
                f"{path} and tcmgc/heads/native/structs.py disagree about {name}: (offset, bytes) "
                f"{theirs.get(name)} there, {ours.get(name)} here; delete the file, so that it is "
                "built again, and if that does not help make structs.py follow the C++"
            )
