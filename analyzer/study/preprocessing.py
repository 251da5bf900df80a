"""Pixels to network input, as the card says; and copies of an input that differ in its last bits."""

import numpy as np
from numpy.typing import NDArray

from analyzer.card import Card
from analyzer.perturbations import derived_key, random_words

_LAST_BITS = 8  # units in the last place by which a copy may differ


class Preprocessing:
    """Pixels to normalised network input, canonical channel order: (pixel - mean) / std, float32.

    shape: (C, H, W), RGB or L. mean, std: (C, 1), in that channel order, whatever the model's is. input_type: the
    model's own; for "float16" the values are those that survive its cast.
    """

    def __init__(self, card: Card, input_type: str = "float32") -> None:
        self.shape, self.input_type = card.pixel_shape, input_type
        order = -1 if card.channels == "BGR" else 1
        self.mean = np.array(card.mean[::order])[:, None]
        self.std = np.array(card.std[::order])[:, None]

    def apply(self, pixels: NDArray[np.floating]) -> NDArray[np.float32]:
        """(C, H, W) or (C, H * W) grey levels -> (C, H * W) network input."""
        flat = np.asarray(pixels, dtype=np.float64).reshape(self.shape[0], -1)
        values = (flat - self.mean) / self.std
        if self.input_type == "float16":
            values = values.astype(np.float16)
        return np.asarray(values, dtype=np.float32)

    def grid(self, pixels: NDArray[np.floating], grid: tuple[float, float, float, float]) -> tuple[float, float]:
        """(step, reach) in grey levels where the network quantises its input by `grid` (see `Prepared.input_grid`).

        step: the largest over the channels. reach: how far the pixel that is nearest to the next step is away from it;
        0 where each image has a scale of its own.
        """
        scale, zero, lowest, highest = grid
        flat = (np.asarray(pixels, np.float64).reshape(self.shape[0], -1) - self.mean) / self.std
        if scale == 0:
            width = max(float(flat.max()), 0.0) - min(float(flat.min()), 0.0)
            return float((width / (highest - lowest) * self.std).max()), 0.0
        codes = flat / scale
        borders = np.clip(np.floor(codes) + 0.5, lowest - zero + 0.5, highest - zero - 0.5)
        return float((scale * self.std).max()), float((np.abs(codes - borders) * scale * self.std).min())

    def last_bit_copies(self, values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        """`count` copies of network input, every element moved by up to 8 units in the last place, at random.

        What a network makes of them is rounding, not response: they show its noise floor. Whole numbers (uint8) have
        no such neighbours and are copied.
        """
        copies = np.repeat(values[None], count, axis=0)
        if self.input_type == "uint8":
            return copies
        kind = np.float16 if self.input_type == "float16" else np.float32
        words = random_words(derived_key("floor"), copies.size).reshape(copies.shape)
        steps = (words % np.uint64(2 * _LAST_BITS + 1)).astype(np.float32) - _LAST_BITS
        moved: NDArray[np.float32] = (copies + steps * np.spacing(np.abs(copies).astype(kind))).astype(np.float32)
        return moved
