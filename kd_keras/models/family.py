"""What a file in this package must offer to be found: a ``FAMILY``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    r"""One architecture family, found by its file's module-level name ``FAMILY``.

    Attributes:
        pattern: regular expression that a full name of this family matches, e.g. ``"mlp(-\d+)+"``.
        examples: names that exist, listed in errors; the ready ones first.
        build: ``(name, *, classes, input_shape, **options) -> tf.keras.Model``. The keyword
            parameters after ``input_shape`` are the family's options. The first line of its
            module's docstring says what the family is, and its source, in ``docs/networks.md``.
        weight_aliases: layer names in published weight files -> layer names here, for layers that
            this package names otherwise.
        input_shapes: the image sizes that the publication measures, ``(height, width, channels)``;
            ``docs/networks.md`` gives the costs for these.
        sizes: function of a name that gives the names of smaller and larger networks, and itself.
        size_options: option -> values that make the network smaller or larger.
    """

    pattern: str
    examples: tuple[str, ...]
    build: Callable[..., Any]
    weight_aliases: Mapping[str, str] = field(default_factory=dict)
    input_shapes: tuple[tuple[int, int, int], ...] = ((32, 32, 3),)
    sizes: Callable[[str], tuple[str, ...]] = lambda name: (name,)
    size_options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
