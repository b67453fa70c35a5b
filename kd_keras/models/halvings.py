"""How often a net made for 224x224 halves its maps when the image is smaller."""

from kd_keras.errors import InputError


def strides(
    input_shape: tuple[int, int, int], places: int, smallest: int, halvings: int | None
) -> tuple[int, ...]:
    """Strides of the layers that halve the maps in the full-size net, in their order.

    Small images skip the first halvings, as is the habit for CIFAR: the later layers, which hold
    nearly all weights, keep their structure.

    Args:
        input_shape: ``(height, width, channels)``, in pixels.
        places: layers that halve in the full-size net.
        smallest: height and width that the last maps should keep, in pixels.
        halvings: how many of them halve; None for as many as leave ``smallest``.

    Returns:
        ``places`` strides: 1s, then 2s.

    Raises:
        InputError: ``halvings`` is no whole number from 0 to ``places``.

    Example:
        >>> strides((32, 32, 3), places=5, smallest=4, halvings=None)
        (1, 1, 2, 2, 2)
    """
    if halvings is None:
        side = min(input_shape[:2])
        halvings = max(n for n in range(places + 1) if n == 0 or -(-side // 2**n) >= smallest)
    elif isinstance(halvings, bool) or halvings not in range(places + 1):
        raise InputError(
            f"halvings {halvings!r} is not possible; "
            f"give a whole number from 0 to {places}, or None to follow the image's size"
        )
    return (1,) * (places - halvings) + (2,) * halvings
