"""Trunk and head as named arrays, as one flat vector, and as files.

Why: the federation sums flat vectors and the network wants named layers; both look at the same memory, and
this module needs no torch, so a coordinator starts fast. Runs: anywhere (a head only on its own partner).
Source: initialisation as SparseChem (Xavier uniform with ReLU gain, bias 0.1), but a head starts at a tenth of it; files are
safetensors.
"""

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from data_contracts.errors import UpdateMismatch
from data_contracts.plan import Modality
from tasks.exchange.durable_files import replace_whole

N_BITS = 32_768
INITIAL_BIAS = 0.1
PUBLISHED_HEAD_GAIN = 1.0
HEAD_GAIN = 0.1
"""A head that starts near zero says nothing until it has learnt something: random rows would teach the shared trunk noise,
and the fewer labels an endpoint has, the longer. Measured for classes: docs/decisions/0045."""
REGRESSION_ARRAYS = ("centre", "scale", "log_deviation")

Layout = tuple[tuple[str, tuple[int, ...]], ...]
FloatArray = npt.NDArray[np.float32]
Parameters = dict[str, FloatArray]


def trunk_layout(hidden: int, *, n_layers: int = 0, n_bits: int = N_BITS) -> Layout:
    """List the trunk's arrays in the order of the flat vector.

    Args:
        hidden: Width H of the trunk.
        n_layers: Further residual layers of shape ``(H, H)`` behind the embedding.
        n_bits: Length of the hashed fingerprint.

    Returns:
        Names and shapes: ``embedding.weight (n_bits, H)``, ``embedding.bias (H,)``, ``layers.i.weight/bias``.
    """
    layout: list[tuple[str, tuple[int, ...]]] = [
        ("embedding.weight", (n_bits, hidden)),
        ("embedding.bias", (hidden,)),
    ]
    for layer in range(n_layers):
        layout += [(f"layers.{layer}.weight", (hidden, hidden)), (f"layers.{layer}.bias", (hidden,))]
    return tuple(layout)


def head_layout(n_endpoints: int, hidden: int, *, modality: Modality = "classification") -> Layout:
    """List a head's arrays: ``weight (n_endpoints, H)`` and ``bias (n_endpoints,)``.

    A head with regression endpoints also has, for every endpoint, ``centre`` and ``scale`` (what it predicts times scale
    plus centre is the value; 0 and 1 for classes) and ``log_deviation``, the logarithm of its error's deviation in units
    of scale.
    """
    layout: Layout = (("weight", (n_endpoints, hidden)), ("bias", (n_endpoints,)))
    if modality == "classification":
        return layout
    return (*layout, *((name, (n_endpoints,)) for name in REGRESSION_ARRAYS))


def vector_length(layout: Layout) -> int:
    """Count the parameters of a layout."""
    return sum(math.prod(shape) for _, shape in layout)


def unflatten(vector: FloatArray, layout: Layout) -> Parameters:
    """Name the stretches of a flat vector; the result shares the vector's memory.

    Raises:
        UpdateMismatch: If the vector is not float32 of the layout's length.
    """
    if vector.dtype != np.float32 or vector.shape != (vector_length(layout),):
        raise UpdateMismatch(
            f"flat vector has {vector.dtype} {vector.shape}, the layout needs float32 ({vector_length(layout)},)"
        )
    arrays: Parameters = {}
    start = 0
    for name, shape in layout:
        arrays[name] = vector[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    return arrays


def flatten(parameters: Mapping[str, FloatArray], layout: Layout) -> FloatArray:
    """Lay the named arrays one behind the other, with a single copy.

    Raises:
        UpdateMismatch: If names or shapes are not those of the layout.
    """
    check_layout(parameters, layout)
    vector = np.empty(vector_length(layout), dtype=np.float32)
    for name, view in unflatten(vector, layout).items():
        view[...] = parameters[name]
    return vector


def check_layout(parameters: Mapping[str, FloatArray], layout: Layout) -> None:
    """Check names, order-independent, shapes and type.

    Raises:
        UpdateMismatch: If one is not that of the layout.
    """
    got = {name: (str(array.dtype), tuple(array.shape)) for name, array in parameters.items()}
    expected = {name: ("float32", shape) for name, shape in layout}
    if got != expected:
        raise UpdateMismatch(
            f"parameters are {got}, the layout needs {expected}; is the file of another model?"
        )


def layout_of(trunk: Mapping[str, FloatArray]) -> Layout:
    """Recognise a trunk's layout from its arrays.

    Raises:
        UpdateMismatch: If they are no trunk.
    """
    embedding = trunk.get("embedding.weight")
    if embedding is None or embedding.ndim != 2:  # noqa: PLR2004 - (bits, hidden)
        raise UpdateMismatch(f"a trunk needs a matrix 'embedding.weight', got {sorted(trunk)}")
    n_bits, hidden = embedding.shape
    layout = trunk_layout(hidden, n_layers=sum(name.endswith(".weight") for name in trunk) - 1, n_bits=n_bits)
    check_layout(trunk, layout)
    return layout


def initial_trunk(hidden: int, *, seed: int, n_layers: int = 0, n_bits: int = N_BITS) -> Parameters:
    """Draw the first trunk from a public seed; the arrays share one flat vector.

    Returns:
        Xavier-uniform weights with ReLU gain and biases of 0.1, float32; the same for the same arguments.
    """
    layout = trunk_layout(hidden, n_layers=n_layers, n_bits=n_bits)
    arrays = unflatten(np.empty(vector_length(layout), dtype=np.float32), layout)
    return _draw(arrays, gain=math.sqrt(2.0), bias=INITIAL_BIAS, seed=seed)


def initial_head(n_endpoints: int, hidden: int, *, seed: int, gain: float = HEAD_GAIN) -> Parameters:
    """Draw a partner's first head from the partner's own seed.

    Args:
        n_endpoints: Its rows.
        hidden: Width of the features.
        seed: Source of the draws.
        gain: Factor on the published size, Xavier uniform with biases of 0.1.

    Returns:
        ``weight (n_endpoints, hidden)`` and ``bias (n_endpoints,)``, float32; the same for the same arguments.
    """
    layout = head_layout(n_endpoints, hidden)
    arrays = unflatten(np.empty(vector_length(layout), dtype=np.float32), layout)
    return _draw(arrays, gain=gain, bias=INITIAL_BIAS * gain, seed=seed)


def _draw(arrays: Parameters, *, gain: float, bias: float, seed: int) -> Parameters:
    rng = np.random.Generator(np.random.PCG64(seed))
    for array in arrays.values():
        if array.ndim == 1:
            array[...] = bias
        else:
            bound = np.float32(gain * math.sqrt(6.0 / sum(array.shape)))
            rng.random(out=array, dtype=np.float32)
            np.subtract(array * (2 * bound), bound, out=array)
    return arrays


def read_parameters(path: Path) -> Parameters:
    """Read a safetensors file.

    Raises:
        UpdateMismatch: If it is missing, damaged, or holds anything but float32.
    """
    try:
        arrays: Parameters = load_file(path)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UpdateMismatch(
            f"'{path.name}' is no readable safetensors file ({type(error).__name__}); fetch it again"
        ) from None
    wrong = sorted(name for name, array in arrays.items() if array.dtype != np.float32)
    if wrong:
        raise UpdateMismatch(f"'{path.name}' holds {wrong} of another type than float32")
    return arrays


def write_parameters(path: Path, parameters: Mapping[str, FloatArray]) -> None:
    """Write a safetensors file in one step; the same arrays give the same bytes."""
    replace_whole(path, [save({name: np.ascontiguousarray(parameters[name]) for name in sorted(parameters)})])


def write_vector(path: Path, vector: FloatArray) -> None:
    """Write a flat vector as ``.npy`` in one step; read it with ``read_vector``."""
    replace_whole(path, _npy_chunks(vector))


def read_vector(path: Path) -> FloatArray:
    """Map a flat float32 vector written by ``write_vector``; nothing is read until it is used.

    Raises:
        UpdateMismatch: If the file is missing, damaged, or not a flat float32 vector.
    """
    try:
        vector: FloatArray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UpdateMismatch(
            f"'{path.name}' is no readable .npy vector ({type(error).__name__}); compute it again"
        ) from None
    if vector.dtype != np.float32 or vector.ndim != 1:
        raise UpdateMismatch(
            f"'{path.name}' holds {vector.dtype} of shape {vector.shape}, not a flat float32 vector"
        )
    return vector


def _npy_chunks(vector: FloatArray) -> Iterable[memoryview | bytes]:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": vector.shape}
    )
    return [header.getvalue(), np.ascontiguousarray(vector).data.cast("B")]
