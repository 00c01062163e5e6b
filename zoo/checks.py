"""Checks of what a caller passes. Each says what was passed, what is needed and how to mend it."""

import math
from collections.abc import Collection, Sequence


class BadInput(ValueError):
    """What the caller passed cannot be used; the message says what was passed, what is needed and how to mend it.

    The recipes' command lines show the message alone and exit with status 2.
    """


def positive_int(name: str, value: object) -> int:
    """Returns `value` when it is an integer of at least 1; raises `BadInput` otherwise (also for a bool)."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise BadInput(f"{name}={value!r}: it must be an integer of at least 1.")
    return value.__index__()


def positive_ints(name: str, values: object, *, minimum_length: int = 0) -> tuple[int, ...]:
    """Returns `values` as a tuple when each is an integer of at least 1; raises `BadInput` otherwise."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise BadInput(f"{name}={values!r}: it must be a tuple of integers, such as (32, 64).")
    if len(values) < minimum_length:
        raise BadInput(f"{name}={values!r}: it must hold at least {minimum_length} integer(s), such as (32, 64).")
    return tuple(positive_int(f"{name}[{index}]", value) for index, value in enumerate(values))


def num_classes(value: object) -> int:
    """Returns `value` when it is an integer of at least 2; raises `BadInput` otherwise."""
    if positive_int("num_classes", value) < 2:
        raise BadInput(f"num_classes={value!r}: a classifier needs at least 2 classes.")
    return value.__index__()  # type: ignore[attr-defined]


def vocabulary_size(value: object, name: str = "vocabulary_size") -> int:
    """Returns `value` when it is an integer of at least 2; raises `BadInput` otherwise."""
    if positive_int(name, value) < 2:
        raise BadInput(f"{name}={value!r}: a text needs at least 2 different tokens.")
    return value.__index__()  # type: ignore[attr-defined]


def heads(num_heads: object, hidden_dim: int) -> int:
    """Returns `num_heads` when it is a positive integer that divides `hidden_dim`; raises `BadInput` otherwise."""
    count = positive_int("num_heads", num_heads)
    if hidden_dim % count:
        divisors = [str(n) for n in range(1, hidden_dim + 1) if hidden_dim % n == 0]
        raise BadInput(f"num_heads={count}: it must divide hidden_dim={hidden_dim}, such as {', '.join(divisors[:8])}.")
    return count


def rate(name: str, value: object) -> float:
    """Returns `value` when it is a number in [0, 1); raises `BadInput` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise BadInput(f"{name}={value!r}: it must be a number in [0, 1); 0 switches it off.")
    return float(value)


def positive_number(name: str, value: object) -> float:
    """Returns `value` when it is a finite number above 0; raises `BadInput` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise BadInput(f"{name}={value!r}: it must be a finite number above 0.")
    return float(value)


def penalty(name: str, value: object) -> float:
    """Returns `value` when it is a finite number of at least 0; raises `BadInput` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value >= 0):
        raise BadInput(f"{name}={value!r}: it must be a finite number of at least 0; 0 switches it off.")
    return float(value)


def one_of(name: str, value: object, choices: Sequence[str]) -> str:
    """Returns `value` when it is one of `choices`; raises `BadInput` that lists them otherwise."""
    if not isinstance(value, str) or value not in choices:
        raise BadInput(f"{name}={value!r}: it must be one of {', '.join(map(repr, choices))}.")
    return value


def one_of_ints(name: str, value: object, choices: Collection[int]) -> int:
    """Returns `value` when it is an integer among `choices`; raises `BadInput` that lists them otherwise."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() not in choices:
        raise BadInput(f"{name}={value!r}: it must be one of {', '.join(map(str, sorted(choices)))}.")
    return value.__index__()


def image_shape(name: str, value: object) -> tuple[int, int, int]:
    """Returns `value` when it is (height, width, channels), each at least 1; raises `BadInput` otherwise."""
    shape = positive_ints(name, value)
    if len(shape) != 3:
        raise BadInput(f"{name}={value!r}: it must be (height, width, channels), such as (28, 28, 1).")
    return shape  # type: ignore[return-value]
