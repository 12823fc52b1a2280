"""Putting several examples into one row, so that little of a batch is padding.

    capacity 10, lengths 6 5 4 3 2      ->      6 4 | 5 3 2

First-fit decreasing: the longest example first, each into the first row that has room. It needs at most 11/9 of the
fewest possible rows and 6/9 of a row more, and no state from one step to the next (the reference keeps a buffer of 48
examples, which has to be saved to resume; training.md E.9).
"""

from collections.abc import Sequence

from molmoact2.data.errors import require


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of the examples of each row; rows in the order in which they were opened, every index exactly once.

    Raises:
        ValueError: an example is longer than a row.
    """
    longest = max(lengths, default=0)
    require(longest <= capacity, f"An example has {longest} tokens, but a row holds {capacity}. Allow longer rows.")
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, left in enumerate(room) if left >= lengths[index]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(capacity)
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows
