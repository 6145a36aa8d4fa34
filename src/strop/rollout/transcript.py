"""What has been sampled so far, row by row, and when a row is done.

A row ends with a stop token or a stop string ("stop", both kept), or at the length limit
("length"). Stop strings are looked for in the decoded tail only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from strop.types import Finish

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sampled completion: token ids, their log-probs (nats, fp32), and why it ended."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish


@dataclass(frozen=True, slots=True)
class Stop:
    """When a row ends.

    Attributes:
        ids: tokens that end a row.
        strings: texts that end a row once its decoded text contains one.
        decode: token ids to text; needed for `strings`.
        max_new_tokens: the length limit.
    """

    ids: frozenset[int]
    strings: tuple[str, ...]
    decode: Decode | None
    max_new_tokens: int


@dataclass(slots=True)
class Transcript:
    """Tokens and log-probs of N rows, written a token at a time.

    Attributes:
        ids, logprobs: [N, max_new_tokens].
        length: [N] tokens so far.
        stopped: [N].
        stops: whether a token ends a row, up to the largest that does and one more, for all above.
    """

    stop: Stop
    ids: Ints
    logprobs: NDArray[np.float32]
    length: Ints
    stopped: Bools
    stops: Bools
    tails: dict[int, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, num_rows: int, stop: Stop) -> Transcript:
        """A transcript of so many rows, with no tokens yet."""
        shape = (num_rows, stop.max_new_tokens)
        stops = np.zeros(max(stop.ids, default=-1) + 2, np.bool_)
        stops[list(stop.ids)] = True
        return cls(
            stop=stop,
            ids=np.empty(shape, np.int64),
            logprobs=np.empty(shape, np.float32),
            length=np.zeros(num_rows, np.int64),
            stopped=np.zeros(num_rows, np.bool_),
            stops=stops,
        )

    def write(self, rows: Ints, ids: Ints, logprobs: NDArray[np.float32]) -> Bools:
        """Add one token to each of these rows; true where the row is now done, [len(rows)]."""
        place = self.length[rows]
        self.ids[rows, place] = ids
        self.logprobs[rows, place] = logprobs
        self.length[rows] = place + 1
        stopped = self.stops[np.minimum(ids, len(self.stops) - 1)]
        if self.stop.strings:
            for i in np.flatnonzero(~stopped):
                stopped[i] = self._has_stop_string(int(rows[i]))
        self.stopped[rows] = stopped
        return self.finished(rows)

    def finished(self, rows: Ints) -> Bools:
        """Which of these rows are done, [len(rows)]."""
        done: Bools = self.stopped[rows] | (self.length[rows] == self.stop.max_new_tokens)
        return done

    def sampled(self, row: int) -> Sampled:
        """The row as it stands."""
        length = int(self.length[row])
        finish: Finish = "stop" if self.stopped[row] else "length"
        return Sampled(tuple(self.ids[row, :length].tolist()), tuple(self.logprobs[row, :length].tolist()), finish)

    def _has_stop_string(self, row: int) -> bool:
        """Whether the text contains a stop string, found by decoding the tail from a moving start.

        The start moves on only while the text from there is longer than any stop string, whatever
        number of tokens that takes (a token may be part of a character, or no text at all).
        """
        decode, strings = self.stop.decode, self.stop.strings
        assert decode is not None
        ids = self.ids[row, : self.length[row]].tolist()
        start = self.tails.get(row, 0)
        tail = decode(ids[start:])
        if any(s in tail for s in strings):
            return start == 0 or any(s in decode(ids) for s in strings)
        enough = max(map(len, strings)) + 8  # a decoder may drop a leading space or show a cut character
        if len(tail) >= 4 * enough:
            back = 1
            while len(decode(ids[-back:])) < enough:
                back += 1
            self.tails[row] = len(ids) - back
        return False
