"""Array types: what the elements are. Docstrings give the shapes. And arrays in files."""

import math
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
DoubleArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
PixelArray: TypeAlias = NDArray[np.uint8]
AnyArray: TypeAlias = NDArray[Any]


def map_array(path: Path, dtype: str, offset: int, shape: tuple[int, ...]) -> AnyArray:
    """Map an array in a file into memory. It is read where the disk maps no files, such as CIFS without a cache."""
    try:
        return np.memmap(path, dtype, "r", offset, shape)
    except OSError:
        return np.fromfile(path, dtype, math.prod(shape), offset=offset).reshape(shape)
