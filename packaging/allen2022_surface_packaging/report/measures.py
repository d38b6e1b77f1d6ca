"""The measures that the report shows of each neuroid, and the ends of their scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import AnyArray


@dataclass(frozen=True)
class Measure:
    """A number that every neuroid has.

    Attributes
    ----------
    column : of the table of neuroids
    n_digits : after the decimal point, where the number is written
    """

    column: str
    title: str
    unit: str
    n_digits: int


MEASURES = (
    Measure("nc_testset", "Noise ceiling", "%", 1),
    Measure("nc_repetitions", "Noise ceiling from test repetitions", "%", 1),
    Measure("split_half", "Split-half ceiling", "r", 3),
    Measure("repetition_r", "Correlation of repetitions", "r", 3),
)


def highest_on_scale(values: AnyArray, *, quantile: float = 1.0) -> float:
    """Return the end of a scale that starts at 0: a round number above a quantile of the values that are finite.

    It is 1, 2, 5 or another whole number below 10, times a power of ten; 1 if no value is above 0.
    """
    valid = values[np.isfinite(values)]
    highest = float(np.quantile(valid, quantile)) if len(valid) else 0.0
    if highest <= 0:
        return 1.0
    step = 10.0 ** np.floor(np.log10(highest))
    return float(round(np.ceil(highest / step - 1e-9) * step, 10))
