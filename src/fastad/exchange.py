"""Arrays from and for other libraries: DLPack and the array API standard.

The standard's namespace is `fastad` itself, as NumPy's is `numpy`: what it asks for beyond NumPy's
functions is here.  Every tensor lives on the device ``"cpu"``.
"""

from __future__ import annotations

import numpy as np

from . import _core
from ._core import Tensor
from ._core import array as _primal

__all__ = ["finfo", "from_dlpack", "iinfo", "isdtype"]

API_VERSION = "2024.12"
_KNOWN_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")


def check_device(name, device):
    """Raise ValueError unless `device` is None or "cpu"."""
    if device is not None and device != "cpu":
        raise ValueError(f'{name}: the only device is "cpu", got {device!r}')


def from_dlpack(x, /, *, device=None, copy=None) -> Tensor:
    """Return a tensor over the memory of another library's array.

    `x` is anything with ``__dlpack__`` (NumPy, PyTorch, JAX, ...).  Arrays of more than
    1 KiB that are contiguous in C order and aligned are not copied, unless `copy` is true: then
    nobody may write to `x` as long as the tensor, or what was computed from it, is in use, because
    values on the tape never change.

    Raises
    ------
    ValueError
        If `device` is not "cpu", or `copy` is False and the memory cannot be shared.
    BufferError
        If `x` cannot be exported.

    Examples
    --------
    >>> import fastad as ad, numpy as np
    >>> ad.from_dlpack(np.arange(3.0)).tolist()
    [0.0, 1.0, 2.0]
    """
    check_device("from_dlpack", device)
    return shared("from_dlpack", np.from_dlpack(x), copy)


def shared(name, values, copy):
    """Return a tensor over an ndarray's memory, or a copy where `copy` is true."""
    if copy:
        return _core.wrap(values)
    if copy is not None and not (values.flags.c_contiguous and values.flags.aligned):
        raise ValueError(
            f"{name}: copy=False, but values that are not contiguous in C order and aligned "
            "need a copy"
        )
    return _core.borrow(values[...])        # of the view, not of `values`, which stays writable


def isdtype(dtype, kind) -> bool:
    """Return whether a dtype is of a kind: "bool", "integral", "real floating", "numeric" ...

    Examples
    --------
    >>> import fastad as ad
    >>> ad.isdtype(ad.float32, "real floating")
    True
    """
    return np.isdtype(np.dtype(dtype), kind)


def finfo(type, /):
    """Return the limits of a floating dtype, or of a tensor's, as ``numpy.finfo`` does.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.finfo(ad.float32).bits
    32
    """
    return np.finfo(type.dtype if isinstance(type, Tensor) else type)


def iinfo(type, /):
    """Return the limits of an integer dtype, or of a tensor's, as ``numpy.iinfo`` does.

    Examples
    --------
    >>> import fastad as ad
    >>> ad.iinfo(ad.int8).max
    127
    """
    return np.iinfo(type.dtype if isinstance(type, Tensor) else type)


# Methods of Tensor.


def _namespace(t, /, *, api_version=None):
    """Return the namespace of the array API standard: fastad itself.

    Raises
    ------
    ValueError
        If `api_version` is one that fastad does not follow.
    """
    if api_version is not None and api_version not in _KNOWN_VERSIONS:
        raise ValueError(
            f"__array_namespace__: version {api_version!r} of the standard is not known; "
            f"known are {', '.join(_KNOWN_VERSIONS)}"
        )
    from importlib import import_module

    return import_module(__package__)


def _to_device(t, device, /, *, stream=None) -> Tensor:
    """Return the tensor itself: the only device is "cpu"."""
    check_device("to_device", device)
    if stream is not None:
        raise ValueError("to_device: there are no streams on a CPU")
    return t


def _dlpack(t, /, *, stream=None, max_version=None, dl_device=None, copy=None):
    """Export the values by DLPack, without a copy where the consumer knows read-only memory.

    Raises
    ------
    BufferError
        If the tensor requires gradients, which would be lost, or `copy` is False and the consumer
        could write.
    """
    if t.requires_grad:
        raise BufferError(
            "__dlpack__: this tensor requires gradients, which other libraries would drop; "
            "use .detach()"
        )
    if stream is not None:
        raise BufferError("__dlpack__: there are no streams on a CPU")
    values = _primal(t)
    if copy is None:
        # before version 1 nothing says that memory is read-only
        copy = max_version is None or max_version < (1, 0) or not _EXPORTS_READ_ONLY
    if copy:
        return np.array(values).__dlpack__(**_versioned(max_version, dl_device))
    return values.__dlpack__(**_versioned(max_version, dl_device))


_EXPORTS_READ_ONLY = np.lib.NumpyVersion(np.__version__) >= "2.1.0"


def _versioned(max_version, dl_device):
    """Return the options of NumPy's export; before 2.1 it had none."""
    if not _EXPORTS_READ_ONLY:
        return {}
    return {"max_version": max_version, "dl_device": dl_device}


def _dlpack_device(t, /):
    """Return DLPack's number of the device, that of CPUs, and the device's index."""
    return _primal(t).__dlpack_device__()


def _device(t) -> str:
    """The device that holds the values: always "cpu"."""
    return "cpu"


METHODS = {
    "__array_namespace__": _namespace,
    "__dlpack__": _dlpack,
    "__dlpack_device__": _dlpack_device,
    "device": property(_device),
    "to_device": _to_device,
}
