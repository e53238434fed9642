"""The order of the examples: that of Grain's shuffle, for a whole epoch at once.

The decision: the permutation is Grain's own, bit for bit (`MapDataset.shuffle`; a test compares
them), but computed over an array, where Grain takes microseconds an example: on two cores, more
than to read it. It is a Feistel network of four rounds of Simon's function (Beaulieu et al. 2013,
eprint.iacr.org/2013/404) on numbers of 2·W bits, applied until the result lies below N (Black and
Rogaway 2002, "cycle walking").
"""

import threading

import numpy as np

ROUNDS = 4
LEAST_BITS = 16  # of a number that is permuted


class Shuffled:
    """Positions in an endless stream of epochs, each in an order of its own → examples."""

    def __init__(self, num_examples: int, *, seed: int):
        """Computes nothing yet; epoch e has the order of seed + e."""
        self._num, self._seed = num_examples, seed % 2**32
        self._lock = threading.Lock()
        self._epochs: dict[int, np.ndarray] = {}

    def rows(self, first: int, num: int) -> np.ndarray:
        """Returns the examples at the positions `first` … `first + num` − 1, int64 [num]."""
        positions = np.arange(first, first + num)
        epochs, within = np.divmod(positions, self._num)
        found = np.empty(num, np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            chosen = epochs == epoch
            found[chosen] = self._epoch(epoch)[within[chosen]]
        return found

    def _epoch(self, epoch: int) -> np.ndarray:
        with self._lock:  # threads that read ahead wait for the one that computes
            if epoch not in self._epochs:
                # At the turn of an epoch, others still read the one before.
                self._epochs = {one: kept for one, kept in self._epochs.items() if one == epoch - 1}
                self._epochs[epoch] = permutation(self._num, seed=self._seed + epoch)
            return self._epochs[epoch]


def permutation(num: int, *, seed: int) -> np.ndarray:
    """Returns where Grain's shuffle finds each of `num` examples, uint32 [num].

    Where N is one more than a power of 4, Grain shows one example twice and one never; here none.
    """
    word = max((num - 1).bit_length() + 1, LEAST_BITS) // 2
    found = _encrypted(word, _keys(seed % 2**32))
    # What is sent beyond the last example goes on from there: all such paths at once, each turn
    # twice as far as the one before.
    while (beyond := np.flatnonzero(found >= num)).size and (found[:num] >= num).any():
        found[beyond] = found[found[beyond]]
    return found[:num]


def _encrypted(word: int, keys: list[int]) -> np.ndarray:
    """Returns the images of all numbers of 2·`word` bits, uint32."""
    mask = 2**word - 1
    half = np.arange(2**word, dtype=np.uint32)
    turned = {by: (half << by | half >> word - by) & mask for by in (1, 2, 8)}
    mixed = turned[1] & turned[8] ^ turned[2]
    left, right = np.repeat(half, 2**word), np.tile(half, 2**word)
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left ^= mixed[right] ^ np.uint32(first & mask)
        right ^= mixed[left] ^ np.uint32(second & mask)
    return left << word | right


def _keys(seed: int) -> list[int]:
    """Returns what C++'s `std::seed_seq{seed}` generates: `ROUNDS` numbers of 32 bits."""
    num, keys = ROUNDS, [0x8B8B8B8B] * ROUNDS
    for k in range(2 * num):
        one, next_one, last = keys[k % num], keys[(k + 1) % num], keys[(k - 1) % num]
        mixed = one ^ next_one ^ last if k < num else (one + next_one + last) % 2**32
        factor, sign = (1664525, 1) if k < num else (1566083941, -1)
        found = factor * (mixed ^ mixed >> 27) % 2**32
        added = 1 if k == 0 else 1 + seed if k == 1 else k % num
        places = ((k + 1) % num, found), ((k + 2) % num, (found + sign * added) % 2**32)
        for place, value in places:
            keys[place] = (keys[place] + value) % 2**32 if k < num else keys[place] ^ value
        keys[k % num] = places[1][1]
    return keys
