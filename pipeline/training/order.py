"""The order of the examples: Grain's shuffle, computed for many positions at once.

The permutation equals that of Grain's `MapDataset.shuffle` bit for bit; tests compare them up to
1e12 examples. Grain takes microseconds for each example, which on two cores is longer than reading
it. Here a block of positions is computed together, in 20 to 130 ns for each. No table grows with
the number of examples N, and the turn of an epoch costs no more than any other block.

The permutation is a Feistel network with four rounds of Simon's function (Beaulieu et al. 2013,
eprint.iacr.org/2013/404) on numbers of 2·W bits. It is applied until the result lies below N
("cycle walking", Black and Rogaway 2002). If N is one more than a power of 4, Grain shows one
example twice and another never; here every example is shown once.
"""

import functools

import numpy as np

ROUNDS = 4
LEAST_WORD = 8  # bits of half a number, even if N needs fewer
BLOCK = 16_384  # positions that are computed at once, in 0.4 to 2 ms; a shorter block costs more


class Shuffled:
    """The examples of one process's rows of each batch, in an endless stream of epochs.

    Threads may call `rows` at the same time, and wait for each other nowhere.
    """

    def __init__(self, num_examples: int, *, seed: int, first: int, num: int, stride: int):
        """Computes nothing yet.

        Args:
            num_examples: N; epoch e is positions e·N … (e + 1)·N − 1, with an order of its own.
            seed: of epoch 0; epoch e is shuffled with the seed `seed` + e.
            first: the position of the first row of step 0.
            num: the rows of a step, which are adjacent.
            stride: the positions from a step's first row to the next step's.
        """
        # With few examples a block would cover many epochs, each of which has its own keys.
        steps = max(1, min(BLOCK, num_examples) // num)

        def block(index: int) -> np.ndarray:
            starts = first + stride * np.arange(index * steps, (index + 1) * steps)
            positions = (starts[:, None] + np.arange(num)).ravel()
            return examples(positions, num_examples, seed=seed).reshape(steps, num)

        # Threads read ahead in a few neighbouring blocks. Two may compute the same block: that
        # costs less than a lock, as all would wait for the thread that holds it.
        self._steps, self._block = steps, functools.lru_cache(maxsize=4)(block)

    def rows(self, step: int) -> np.ndarray:
        """Returns the examples of the rows of `step`, int64 [num]."""
        index, within = divmod(step, self._steps)
        return self._block(index)[within].copy()


def examples(positions: np.ndarray, num_examples: int, *, seed: int) -> np.ndarray:
    """Returns the examples at `positions` in the stream, both int64 [n]."""
    epochs, within = np.divmod(positions, num_examples)
    found = np.empty(len(positions), np.int64)
    firsts = np.flatnonzero(np.diff(epochs, prepend=-1))
    for first, end in zip(firsts, [*firsts[1:], len(positions)], strict=True):
        now = (seed + int(epochs[first])) % 2**32
        found[first:end] = _permuted(within[first:end], num_examples, now)
    return found


def _permuted(positions: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Returns the examples at `positions` of an epoch, both int64 [n]."""
    word = max((num - 1).bit_length() + 1, 2 * LEAST_WORD) // 2
    if word == LEAST_WORD:
        return _small(num, seed)[positions]
    keys = round_keys(seed)
    found = encrypted(positions.astype(np.uint64), word, keys)
    # Less than 3 of 4 numbers are N or more. Only those are encrypted again.
    beyond = np.flatnonzero(found >= num)
    while beyond.size:
        found[beyond] = again = encrypted(found[beyond], word, keys)
        beyond = beyond[again >= num]
    return found.astype(np.int64)


@functools.lru_cache(maxsize=4)
def _small(num: int, seed: int) -> np.ndarray:
    """Returns an epoch of at most 4^`LEAST_WORD` examples, int64 [num].

    Few of so many numbers may lie below N, so that a walk from a position would be long.
    """
    found = encrypted(np.arange(4**LEAST_WORD, dtype=np.uint64), LEAST_WORD, round_keys(seed))
    # All walks advance at once, and each turn doubles how far they reach.
    while (beyond := np.flatnonzero(found >= num)).size and (found[:num] >= num).any():
        found[beyond] = found[found[beyond]]
    return found[:num].astype(np.int64)


def encrypted(numbers: np.ndarray, word: int, keys: list[int]) -> np.ndarray:
    """Returns what the cipher maps `numbers` of 2·`word` bits to, both uint64 [n]."""
    bits, mask = np.uint64(word), np.uint32(2**word - 1)

    def mixed(half: np.ndarray) -> np.ndarray:
        # Bits that a shift moves beyond the word, or beyond 32 bits, are those the mask removes.
        one, two, eight = (half << np.uint32(by) | half >> np.uint32(word - by) for by in (1, 2, 8))
        return (one & eight ^ two) & mask

    left, right = (numbers >> bits).astype(np.uint32), numbers.astype(np.uint32) & mask
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left ^= mixed(right) ^ np.uint32(first) & mask
        right ^= mixed(left) ^ np.uint32(second) & mask
    return left.astype(np.uint64) << bits | right


def round_keys(seed: int) -> list[int]:
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
