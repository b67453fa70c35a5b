"""Figures that others published, to see one's own beside them. None of them was measured here."""

from typing import NamedTuple


class Published(NamedTuple):
    """One network on one device, as its source reports it.

    Attributes:
        source: who says so.
        network: that they ran.
        device: that they ran it on.
        float_ms: milliseconds of an inference in float.
        int8_ms: in int8.
    """

    source: str
    network: str
    device: str
    float_ms: float
    int8_ms: float

    @property
    def ratio(self) -> float:
        """Of int8 to float: what carries over best to another network."""
        return self.int8_ms / self.float_ms


PUBLISHED = (
    Published("LiteRT 2.2", "MobileNetV2", "Galaxy S25 Ultra, CPU", 6.18, 2.26),
    Published("LiteRT 2.2", "MobileNetV2", "Pixel 9 Pro, CPU", 9.85, 4.07),
    Published("LiteRT 2.2", "MobileNetV2", "Galaxy S25 Ultra, GPU", 0.96, 1.28),
    Published("PocketFlow", "MobileNet-v1", "Snapdragon 845, CPU", 124.5, 56.1),
    Published("PocketFlow", "MobileNet-v2", "Snapdragon 845, CPU", 120.6, 49.0),
)
