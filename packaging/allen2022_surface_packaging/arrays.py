"""Array types: what the elements are. Docstrings give the shapes."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
DoubleArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]
PixelArray: TypeAlias = NDArray[np.uint8]
AnyArray: TypeAlias = NDArray[Any]
