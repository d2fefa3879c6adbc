"""The compiled kernels by ctypes: opening them, their threads, and the structure that describes a convolution."""

from __future__ import annotations

import ctypes
import weakref
from ctypes import POINTER, c_float, c_int, c_int64, c_void_p
from functools import cache
from typing import Any

from resnetkit.errors import ResourceError
from resnetkit.kernels.build import HERE, NAME

LEVELS = ("base", "avx2", "avx512", "amx")
GROUP = 16  # channels and filters come in multiples of it
MOST = 8192  # channels
FIX = "python -m resnetkit.kernels.build, which needs a C++ compiler"


class Convolution(ctypes.Structure):
    """As in kernels.h, where its fields are explained."""

    _fields_ = (
        *((name, c_int64) for name in ("images", "height", "width", "channels", "filters")),
        *((name, c_int64) for name in ("kernel", "stride", "padding", "dilation", "groups", "relu")),
        *((name, c_void_p) for name in ("x", "pixels", "scale", "shift", "weight", "factor", "bias", "residual", "y")),
        ("block", c_int64),
        *((name, c_void_p) for name in ("levels", "beside", "border", "to")),
        *((name, c_float) for name in ("share", "least")),
    )


class Norm(ctypes.Structure):
    """As in kernels.h, likewise."""

    _fields_ = (
        *((name, c_int64) for name in ("places", "channels", "relu")),
        *((name, c_void_p) for name in ("x", "residual", "weight", "bias", "y", "mean", "variance", "gradient")),
        *((name, c_void_p) for name in ("to_x", "to_residual", "to_weight", "to_bias")),
        ("epsilon", c_float),
    )


class Strides(ctypes.Structure):
    """Of weights, in floats from one filter, channel and tap of the kernel to the next."""

    _fields_ = (("filter", c_int64), ("channel", c_int64), ("tap", c_int64))


# of levels of 8 bits
OF_BYTES = (
    *("direct_bytes", "pack_bytes", "winograd_bytes", "round_transformed"),
    *("max_levels", "to_levels", "to_floats"),
)
CONV, PLACED = POINTER(Convolution), (c_void_p, POINTER(Strides))
SIGNATURES: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("direct", "winograd", "max_pool", "mean_pool", "mean", "add_relu"), (CONV,)),
    **dict.fromkeys(("pack", "transform"), (CONV, *PLACED, c_void_p)),
    **dict.fromkeys(("convolve", "weight_gradient"), (CONV, *PLACED)),
    "input_gradient": (CONV, *PLACED, c_void_p),
    **dict.fromkeys(OF_BYTES, (CONV,)),
    **dict.fromkeys(("pack_bytes", "round_transformed"), (CONV, c_void_p, c_void_p)),
    **dict.fromkeys(("norm_forward", "norm_backward", "relu_backward"), (POINTER(Norm),)),
}


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels.

    Raises:
        ResourceError: they were not compiled for this machine.
    """
    path = HERE / NAME
    try:
        found = ctypes.CDLL(str(path))
        found.resnetkit_pool.restype, found.resnetkit_pool.argtypes = c_void_p, (c_int, c_void_p)
        found.resnetkit_end.argtypes = (c_void_p,)
        for packed in (found.resnetkit_packed, found.resnetkit_packed_bytes):
            packed.restype, packed.argtypes = c_int64, (c_int, CONV)
        found.resnetkit_byte_level.argtypes = (c_int,)
        for name, arguments in SIGNATURES.items():
            getattr(found, f"resnetkit_{name}").argtypes = (c_void_p, c_int, *arguments)
    except (OSError, AttributeError) as error:
        raise ResourceError(f"the package's own kernels are not there: {error}", fix=FIX) from error
    return found


def available() -> bool:
    """Whether the kernels were compiled; they are not opened."""
    return (HERE / NAME).exists()


def best_level() -> str:
    """The highest set of instructions of LEVELS that this processor has.

    Raises:
        ResourceError: the kernels were not compiled.
    """
    return LEVELS[library().resnetkit_level()]


class Workers:
    """Threads that run kernels with a set of instructions; one call at a time, others wait.

    Args:
        threads: how many, with the caller's.
        level: of LEVELS; "" is the highest that this processor has.
        team: address of the function GOMP_parallel of another library, to use its threads; 0: threads of its own.

    Raises:
        ResourceError: the kernels were not compiled, the processor has no such instructions, or there are no threads.
    """

    def __init__(self, threads: int, level: str = "", team: int = 0) -> None:
        best = best_level()
        self.level = level or best
        if self.level not in LEVELS[: LEVELS.index(best) + 1]:
            raise ResourceError(f"this processor has no {self.level}", fix=f"one of {', '.join(LEVELS)}")
        self.number = LEVELS.index(self.level)
        self.byte_number = int(library().resnetkit_byte_level(self.number))
        self.threads = threads
        self._pool = library().resnetkit_pool(threads, team or None)
        if not self._pool:
            raise ResourceError(f"{threads} threads cannot be had", fix="set RESNETKIT_THREADS=1")
        weakref.finalize(self, library().resnetkit_end, self._pool)

    @property
    def multiplies_bytes(self) -> bool:
        """Whether the processor adds up products of bytes, without going over integers of 16 bits."""
        return self.byte_number > LEVELS.index("avx512")

    def packed(self, conv: Convolution) -> int:
        """Floats of the weights of a convolution as `pack` gives them."""
        return int(library().resnetkit_packed(self.number, conv))

    def packed_bytes(self, conv: Convolution) -> int:
        """The same of levels of 8 bits."""
        return int(library().resnetkit_packed_bytes(self.byte_number, conv))

    def call(self, name: str, work: Convolution | Norm, *rest: Any) -> None:
        """Run one of SIGNATURES; the arrays that `work` points to must be as large as it says.

        Raises:
            MemoryError: there is none to compute in.
        """
        number = self.byte_number if name in OF_BYTES else self.number
        if getattr(library(), f"resnetkit_{name}")(self._pool, number, work, *rest):
            raise MemoryError(f"no memory for {name}")
