"""What turns the pixels of a picture into the numbers that a model was trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tflite_export.errors import ExportError

_ORDERS = {"RGB": 3, "BGR": 3, "gray": 1}


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants to be fed.

    A pixel, 0 to 255, is scaled to `pixel_range`; what it becomes is `(value - mean) / std`.

    Example:
        >>> imagenet = Preprocessing((0, 1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        >>> imagenet.pixel_mean
        (123.675, 116.28, 103.53)

    Attributes:
        pixel_range: what 0 and 255 become, before mean and std: (0, 255), (0, 1) or (-1, 1), say.
        mean: one number for all channels or one a channel, in the model's order; in units of
            `pixel_range`.
        std: likewise.
        channel_order: RGB, BGR or gray; None for what the model's input suggests: RGB or gray.

    Raises:
        ExportError: a number is not finite, the range is empty, a `std` is not above 0, or the
            order is unknown.
    """

    pixel_range: tuple[float, float]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channel_order: str | None = None

    def __post_init__(self) -> None:
        low, high = self.pixel_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ExportError(
                f"pixel_range is {low}..{high}; give two rising numbers, such as 0..1"
            )
        if not self.mean or not all(map(math.isfinite, self.mean)):
            raise ExportError(f"mean is {self.mean}; give one finite number, or one a channel")
        if not self.std or not all(math.isfinite(each) and each > 0 for each in self.std):
            raise ExportError(f"std is {self.std}; give one number above 0, or one a channel")
        if self.channel_order not in (None, *_ORDERS):
            raise ExportError(
                f"channel_order {self.channel_order!r} is unknown; choose one of: "
                f"{', '.join(_ORDERS)}"
            )

    @property
    def pixel_mean(self) -> tuple[float, ...]:
        """The mean in units of pixels: `(pixel - pixel_mean) / pixel_std` is the whole of it."""
        low, high = self.pixel_range
        return tuple(_float32((each - low) * 255 / (high - low)) for each in self.mean)

    @property
    def pixel_std(self) -> tuple[float, ...]:
        """The standard deviation in units of pixels."""
        low, high = self.pixel_range
        return tuple(_float32(each * 255 / (high - low)) for each in self.std)

    def fitted(self, shape: Sequence[int]) -> "Preprocessing":
        """Returns the same with a mean and a std for each channel of a model, and its order.

        Args:
            shape: of the model's input, with the batch.

        Raises:
            ExportError: the input is no picture, or has other channels.
        """
        if len(shape) != 4 or shape[3] not in _ORDERS.values():
            raise ExportError(
                f"preprocessing is for pictures; the model takes {tuple(shape)}: leave out "
                f"pixel_range, mean, std and channel_order"
            )
        channels = shape[3]
        order = self.channel_order or ("gray" if channels == 1 else "RGB")
        if _ORDERS[order] != channels:
            raise ExportError(f"channel_order {order!r} does not fit {channels} channels")
        for name, given in (("mean", self.mean), ("std", self.std)):
            if len(given) not in (1, channels):
                raise ExportError(
                    f"{name} has {len(given)} numbers; the model has {channels} channels: give one "
                    f"number, or one a channel"
                )
        spread = channels if len(self.mean) == 1 else 1, channels if len(self.std) == 1 else 1
        return replace(
            self, mean=self.mean * spread[0], std=self.std * spread[1], channel_order=order
        )

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Returns what the model is fed with for some pixels.

        Args:
            pixels: 0 to 255, (..., channels) in the model's order.

        Returns:
            An array of the same shape, float32.
        """
        mean, std = (np.asarray(each, np.float32) for each in (self.pixel_mean, self.pixel_std))
        return (np.asarray(pixels, np.float32) - mean) / std


def parse(
    pixel_range: str | None,
    mean: Sequence[str] | None,
    std: Sequence[str] | None,
    channel_order: str | None,
) -> Preprocessing | None:
    """Reads a `Preprocessing` from what stands on a command line; None where nothing does.

    Raises:
        ExportError: something is no number, or mean, std or order are given without the range: it
            alone tells what they are in units of.
    """
    if pixel_range is None:
        if mean or std or channel_order:
            raise ExportError(
                "mean, std and channel_order need --pixel_range, what pixels were scaled to before "
                "them: 0..255, 0..1 or -1..1, say"
            )
        return None
    low, dots, high = pixel_range.partition("..")
    if not dots:
        raise ExportError(f"pixel_range is {pixel_range!r}; write it 0..255, 0..1 or -1..1")
    return Preprocessing(
        (_number("pixel_range", low), _number("pixel_range", high)),
        tuple(_number("mean", each) for each in mean or ("0",)),
        tuple(_number("std", each) for each in std or ("1",)),
        channel_order,
    )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ExportError(f"{name} holds {text!r}, which is no number") from None


def _float32(value: float) -> float:
    """The number as float32 in its shortest form, so that it is the same wherever it is written."""
    return float(str(np.float32(value)))
