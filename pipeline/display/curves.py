"""Curves of signals, images with only one column or one row of pixels."""

import numpy as np

CURVE = (64, 192)  # pixels, height and width


def fit(images: np.ndarray) -> bool:
    """Says whether images [N, H, W, C] are signals: one row or one column of several values."""
    return sorted(images.shape[1:3])[0] == 1 < max(images.shape[1:3])


def drawn(images: np.ndarray) -> np.ndarray:
    """Draws signals [N, L, 1, 1 or 3] in [0, 1] as curves from left to right.

    Returns:
        [N, *CURVE, 1 or 3] float32: black on white, or three channels in red, green and blue.
    """
    height, width = CURVE
    values = np.nan_to_num(images.reshape(len(images), -1, images.shape[-1]))
    place = np.arange(values.shape[1])
    # A column of pixels shows all values from its left to its right edge, however many.
    edges = np.linspace(0, place[-1], width + 1)
    places = np.sort(np.concatenate([edges, place]))
    starts = np.searchsorted(places, edges)
    canvas = np.ones((len(images), height, width, values.shape[2]), np.float32)
    for number, signal in enumerate(values):
        for channel, line in enumerate(signal.T):
            found = np.clip(np.interp(places, place, line), 0.0, 1.0)
            high, low = (
                np.rint(
                    (height - 1) * (1 - end(end.reduceat(found, starts[:-1]), found[starts[1:]]))
                )
                for end in (np.maximum, np.minimum)
            )
            row = np.arange(height)[:, None]
            inked = (row >= high) & (row <= low)
            others = [c for c in range(values.shape[2]) if c != channel] or [0]
            canvas[number][..., others] *= ~inked[..., None]
    return canvas
