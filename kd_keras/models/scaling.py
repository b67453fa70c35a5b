"""The smaller and larger networks of a family, for a search of the right one."""

from collections.abc import Callable

_FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)


def scaled(name: str, *, keep: int = 0) -> tuple[str, ...]:
    """The names with all widths at a half to twice those of ``name``, the smallest first.

    Args:
        name: the family's name and whole numbers, joined by ``-``.
        keep: how many of the first numbers are no widths.

    Example:
        >>> scaled("mlp-8-16")
        ('mlp-4-8', 'mlp-6-12', 'mlp-8-16', 'mlp-12-24', 'mlp-16-32')
        >>> scaled("wrn-16-2", keep=1)
        ('wrn-16-1', 'wrn-16-2', 'wrn-16-3', 'wrn-16-4')
    """
    parts = name.split("-")
    first = next(index for index, part in enumerate(parts) if part.isdigit()) + keep
    found = []
    for factor in _FACTORS:
        widths = [str(max(1, round(factor * int(width)))) for width in parts[first:]]
        found.append("-".join([*parts[:first], *widths]))
    return tuple(dict.fromkeys(found))


def up_to_the_next(names: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """A function of a name that gives it, all smaller ones and the next larger one.

    Args:
        names: of the family, the smallest network first.

    Example:
        >>> up_to_the_next(("vgg8", "vgg13", "vgg16"))("vgg8")
        ('vgg8', 'vgg13')
    """
    return lambda name: names[: names.index(name) + 2]
