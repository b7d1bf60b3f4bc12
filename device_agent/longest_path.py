"""The longest path through things of which some come before others."""

from __future__ import annotations

from collections.abc import Collection, Sequence


class CircleError(Exception):
    """The thing at `index` comes before itself."""

    def __init__(self, index: int) -> None:
        super().__init__(f"number {index} comes before itself")
        self.index = index


def longest_path(weights: Sequence[int], before: Sequence[Collection[int]]) -> int:
    """The largest sum of weights along a path, where `before` lists what comes right before each.

    Raises CircleError. Takes time and memory in proportion to what it is given.
    """
    behind: list[list[int]] = [[] for _ in weights]
    waiting = [len(each) for each in before]
    for index, each in enumerate(before):
        for earlier in each:
            behind[earlier].append(index)
    longest = list(weights)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    done = 0
    while ready:
        index = ready.pop()
        done += 1
        for later in behind[index]:
            longest[later] = max(longest[later], longest[index] + weights[later])
            waiting[later] -= 1
            if waiting[later] == 0:
                ready.append(later)
    if done < len(waiting):
        raise CircleError(next(index for index, count in enumerate(waiting) if count))
    return max(longest, default=0)
