"""Where torch computes, and with which numbers. torch is imported when something is asked, never before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from prefroute.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    import torch

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]
"""Numbers a model computes with; int8 are its linear layers on a CPU, the rest then being float32."""

AUTO = "auto"

_MIB = 2**20
_CGROUP = Path("/sys/fs/cgroup")

_is_child = False
"""Whether this process was forked: torch's pool of threads is not in the child, and waiting for it never ends."""


def _after_fork() -> None:
    global _is_child  # noqa: PLW0603 - what a fork leaves behind is a fact of the process
    _is_child = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def is_forked() -> bool:
    """Whether this process was forked from one that may have used torch."""
    return _is_child


def use_threads_that_are_there() -> None:
    """In a forked process let torch compute in the calling thread alone; elsewhere do nothing."""
    if _is_child:
        import torch

        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)


def as_device(name: object) -> str:
    """Check where to compute, by a small allocation there.

    Args:
        name: As torch names devices, such as `"cpu"` or `"cuda:1"`; `"auto"` for a GPU where there is one.

    Returns:
        The device's name, never `"auto"`.

    Raises:
        ConfigurationError: torch has no such device here; says why.
    """
    import torch

    if not isinstance(name, str) or not name:
        msg = f"device must be 'auto' or a device that torch knows, such as 'cpu' or 'cuda:0'; got {name!r}"
        raise ConfigurationError(msg)
    if name == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except Exception as error:  # torch raises RuntimeError, AssertionError and others, by device
        reason = (str(error).splitlines() or [""])[0]
        msg = f"device {name!r} cannot be used: {reason}; leave it at 'auto', or name one that torch has here"
        raise ConfigurationError(msg) from error
    return name


def as_dtype(name: object, device: str) -> Dtype:
    """Check which numbers to compute with.

    Args:
        name: One of `Dtype`; `"auto"` for bfloat16 where the device multiplies it in hardware, else float32.
            float16 is never chosen: its range is too small for some models.
        device: As `as_device` gives it.

    Returns:
        The name, never `"auto"`.

    Raises:
        ConfigurationError: It is no such name, or int8 elsewhere than on a CPU that torch has it for.
    """
    if name == AUTO:
        return "bfloat16" if _multiplies_bfloat16(device) else "float32"
    if name not in get_args(Dtype):
        msg = f"dtype must be 'auto' or one of {', '.join(get_args(Dtype))}; got {name!r}"
        raise ConfigurationError(msg)
    if name == "int8" and (not device.startswith("cpu") or not _has_int8()):
        msg = f"dtype 'int8' is for the CPU, with a torch that has quantized.linear_dynamic; got device {device!r}"
        raise ConfigurationError(msg)
    found: Dtype = name  # type: ignore[assignment] # one of them, as was just seen
    return found


def torch_dtype(dtype: Dtype) -> torch.dtype:
    """What torch calls it; the layers that are not int8 are float32."""
    import torch

    found: torch.dtype = getattr(torch, "float32" if dtype == "int8" else dtype)
    return found


def has_cpu_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16: without them torch's loops take many times as long."""
    try:
        import torch

        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - no other way to ask
    except (ImportError, AttributeError, RuntimeError):
        return False


def _multiplies_bfloat16(device: str) -> bool:
    if device.startswith("cuda"):
        import torch

        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.startswith("cpu") and has_cpu_bfloat16()


def _has_int8() -> bool:
    import torch

    return hasattr(torch, "quantize_per_channel") and hasattr(torch.ops.quantized, "linear_dynamic")


def refuse_too_large(size: int, device: str, what: str) -> None:
    """Refuse what will not fit before it is read: running out of memory may end the whole process.

    Args:
        size: Bytes that it takes.
        device: As `as_device` gives it.
        what: What takes them, for the message.

    Raises:
        ConfigurationError: There is less free memory than that.
    """
    free = free_memory(device)
    if free is not None and size > free:
        raise ConfigurationError(_too_large(size, free, device, what))


def out_of_memory(size: int, device: str, what: str) -> ConfigurationError:
    """The error for what did run out of memory all the same."""
    return ConfigurationError(_too_large(size, free_memory(device), device, what))


def _too_large(size: int, free: int | None, device: str, what: str) -> str:
    left = "too little is" if free is None else f"{_shown(free)} are"
    return (
        f"{what} takes {_shown(size)} of memory and {left} free on {device!r}; "
        "give a smaller model, a dtype of fewer bits, or a device with more memory"
    )


def _shown(size: int) -> str:
    return f"{size / _MIB / 1024:,.1f} GiB" if size >= 1024 * _MIB else f"{size / _MIB:,.1f} MiB"


def free_memory(device: str) -> int | None:
    """Bytes that can still be had there; None where that cannot be told."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    if not device.startswith("cpu"):
        return None
    try:
        import psutil
    except ImportError:
        return None
    known = [int(psutil.virtual_memory().available)]
    limit, used = (_bytes_of(_CGROUP / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        known.append(max(0, limit - used + _reclaimable()))
    return min(known)


def _bytes_of(path: Path) -> int | None:
    """What a file of a control group says; None without one, or where it says "max"."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reclaimable() -> int:
    """Bytes of files that a control group keeps in memory and gives back when it is short."""
    try:
        lines = (_CGROUP / "memory.stat").read_text(encoding="ascii").split()
        return int(lines[lines.index("inactive_file") + 1])
    except (OSError, ValueError, IndexError):
        return 0


def needs_torch(what: str, *packages: str, extra: str) -> None:
    """Refuse early what an extra is needed for.

    Raises:
        MissingExtraError: One of the packages is not installed; names it and the extra.
    """
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        msg = f'{what} needs {" and ".join(missing)}: pip install "prefroute[{extra}]"'
        raise MissingExtraError(msg)
