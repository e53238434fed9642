"""The order of the examples: Grain's shuffle, computed for a whole epoch at once.

The permutation equals that of Grain's `MapDataset.shuffle` bit for bit; a test compares them. This
module computes it over a whole array. Grain takes microseconds for each example, which on two cores
is longer than reading it.

The permutation is a Feistel network with four rounds of Simon's function (Beaulieu et al. 2013,
eprint.iacr.org/2013/404) on numbers of 2·W bits. It is applied until the result lies below N
("cycle walking", Black and Rogaway 2002).
"""

import threading

import numpy as np

ROUNDS = 4
LEAST_BITS = 16  # of the numbers that are permuted, even if N needs fewer


class Shuffled:
    """Maps positions in an endless stream of epochs to examples; each epoch has its own order."""

    def __init__(self, num_examples: int, *, seed: int):
        """Computes nothing yet; epoch e is shuffled with the seed `seed` + e."""
        self._num, self._seed = num_examples, seed % 2**32
        self._lock = threading.Lock()
        self._epochs: dict[int, np.ndarray] = {}

    def rows(self, first: int, num: int) -> np.ndarray:
        """Returns the examples at the positions `first` … `first + num` − 1, int64 [num]."""
        # The range may span epochs: a batch at the turn of one takes examples from both.
        positions = np.arange(first, first + num)
        epochs, within = np.divmod(positions, self._num)
        found = np.empty(num, np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            chosen = epochs == epoch
            found[chosen] = self._epoch(epoch)[within[chosen]]
        return found

    def _epoch(self, epoch: int) -> np.ndarray:
        # Without the lock, every thread that reads ahead would compute the same permutation.
        with self._lock:
            if epoch not in self._epochs:
                # Other threads may still read the epoch before; older ones would only use memory.
                self._epochs = {one: kept for one, kept in self._epochs.items() if one == epoch - 1}
                self._epochs[epoch] = permutation(self._num, seed=self._seed + epoch)
            return self._epochs[epoch]


def permutation(num: int, *, seed: int) -> np.ndarray:
    """Returns the example that Grain's shuffle shows at each of `num` positions, uint32 [num].

    If N is one more than a power of 4, Grain shows one example twice and another never. This
    permutation shows every example once.
    """
    word = max((num - 1).bit_length() + 1, LEAST_BITS) // 2
    found = _encrypted(word, _keys(seed % 2**32))
    # A result of N or more is permuted again until it lies below N. All such paths advance at
    # once, and each turn doubles how far they reach.
    while (beyond := np.flatnonzero(found >= num)).size and (found[:num] >= num).any():
        found[beyond] = found[found[beyond]]
    return found[:num]


def _encrypted(word: int, keys: list[int]) -> np.ndarray:
    """Returns what the cipher maps each number of 2·`word` bits to, uint32 [4^`word`]."""
    # Simon's function sees only one half, so a table of 2^`word` values serves every round.
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
    # The C++ standard prescribes these constants and both passes; any change reorders all data.
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
