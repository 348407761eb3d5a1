"""Products of small numbers by torch, where it is installed and this CPU has instructions for them.

numpy has neither: it must unpack the rows to float32 first, which takes longer than the product. torch is imported
at the first query, and only by routers with such an index. Its plain loops, on a CPU without the instructions,
would take seconds, so they are never used; and neither is torch in a forked process.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute._torch import has_cpu_bfloat16, is_forked

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVELS = 127
"""Steps of int8 on either side of 0."""


def has_bfloat16() -> bool:
    """Whether rows of bfloat16 can be multiplied as they are."""
    return not is_forked() and _cpu_has_bfloat16()


def has_int8() -> bool:
    """Whether rows of int8 can be multiplied as they are, with sums in int32."""
    return not is_forked() and _cpu_has_int8()


@cache
def _cpu_has_bfloat16() -> bool:
    return has_cpu_bfloat16()


@cache
def _cpu_has_int8() -> bool:
    torch = _torch()
    try:
        if torch is None or not torch.cpu._is_vnni_supported():  # noqa: SLF001 - there is no other way to ask
            return False
        ones = torch.ones((2, 3), dtype=torch.int8)
        return bool((torch._int_mm(ones, ones.T) == ones.shape[1]).all())  # noqa: SLF001 - the one that CPUs have
    except (AttributeError, RuntimeError):
        return False


def bfloat16_product(rows: NDArray[np.uint16], queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """`rows @ queries.T` with sums in float32, rounded to bfloat16 at the end.

    Args:
        rows: Bits of bfloat16, shape (p, d).
        queries: Rounded to bfloat16 here, shape (b, d).

    Returns:
        Shape (p, b).
    """
    torch = _torch()
    stored = torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16)
    found: NDArray[np.float32] = (stored @ torch.from_numpy(queries).to(torch.bfloat16).T).float().numpy()
    return found


def int8_product(
    rows: NDArray[np.int8], scales: NDArray[np.float32], queries: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`(rows * scales) @ queries.T` with exact sums in int32.

    Args:
        rows: Shape (p, d).
        scales: What each row is multiplied with, shape (p,).
        queries: Rounded here to 127 steps of the largest number in each, shape (b, d).

    Returns:
        Shape (p, b).
    """
    torch = _torch()
    steps = np.abs(queries).max(axis=1, initial=0.0) / LEVELS  # (b,)
    rounded = np.rint(np.divide(queries, steps[:, None], out=np.zeros_like(queries), where=steps[:, None] > 0))
    sums = torch._int_mm(torch.from_numpy(rows), torch.from_numpy(rounded.astype(np.int8)).T).numpy()  # noqa: SLF001
    found: NDArray[np.float32] = np.multiply(sums, scales[:, None], dtype=np.float32)
    found *= steps.astype(np.float32)
    return found


def _torch() -> Any:
    """The module, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch
