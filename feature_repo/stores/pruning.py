"""Which feature rows any moment can select at all, found without sorting anything.

Where feature rows far outnumber moments, sorting them is what a point-in-time join costs. But of all
rows that come after one moment of their key and before the next, only the newest can ever be selected.
Rows and moments are laid on a grid of key x time cell; counting moments along the grid tells for each
row which moment comes next.

Belongs here: that rule on arrays. Does not belong here: the join, which alone decides what is selected.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


def selectable(
    moment_keys: Int64s, moments: Int64s, row_keys: Int64s, times: Int64s
) -> npt.NDArray[np.bool_]:
    """Mark the rows that some moment of the same key may select as its newest row.

    Every row that will be selected is marked, together with all rows of its key and time; few others
    are: those that share a cell with a moment. The grid has about one cell per feature row.

    Args:
        moment_keys: Key number of each moment; numbers are dense and start at 0.
        moments: Microseconds.
        row_keys: Key number of each feature row, numbered alike.
        times: Microseconds from which on each row is valid.

    Returns:
        One flag per feature row.
    """
    if not len(moments) or not len(times):
        return np.zeros(len(times), np.bool_)
    first = int(min(moments.min(), times.min()))
    length = int(max(moments.max(), times.max())) - first
    keys = int(max(moment_keys.max(), row_keys.max())) + 1
    shift = max(0, length.bit_length() - (len(times) // keys).bit_length())
    width = (length >> shift) + 1
    here = np.bincount(moment_keys * width + ((moments - first) >> shift), minlength=keys * width)
    through = here.cumsum()
    cells = row_keys * width + ((times - first) >> shift)
    following = through[cells]
    meets = here[cells] > 0
    waits = ~meets & (following < through[(row_keys + 1) * width - 1])
    newest = np.full(len(moments), np.iinfo(np.int64).min)
    np.maximum.at(newest, following[waits], times[waits])
    meets[waits] = times[waits] == newest[following[waits]]
    return meets
