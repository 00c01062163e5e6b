"""The smallest case of every builder, for tests/test_contract.py: a new family is one more row.

Parameter counts are written as the arithmetic of the architecture, not as the number that came out.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

import zoo


@dataclasses.dataclass(frozen=True)
class Case:
    """One builder at a small size.

    Attributes:
        builder: Name in `zoo`.
        arguments: Positional arguments.
        choices: Keyword arguments.
        inputs: Random generator -> a batch of inputs, `BATCH` examples.
        targets: Random generator -> a batch of targets.
        loss: What to train with.
        signature: Input name -> (shape, dtype): the promised serving signature.
        output_shape: Of one batch.
        parameters: How many, all in all.
        label: Tells cases of one builder apart.
    """

    builder: str
    arguments: tuple
    inputs: Callable
    targets: Callable
    loss: str
    signature: dict
    output_shape: tuple
    parameters: int
    choices: dict = dataclasses.field(default_factory=dict)
    label: str = "default"

    def build(self):
        return getattr(zoo, self.builder)(*self.arguments, **self.choices)

    def __str__(self):
        return f"{self.builder}-{self.label}"


BATCH = 8


def images(*shape):
    return lambda random: random.integers(0, 256, (BATCH, *shape)).astype("float32")


def numbers(*shape):
    return lambda random: random.normal(size=(BATCH, *shape)).astype("float32")


def classes(num_classes):
    return lambda random: np.arange(BATCH) % num_classes


def conv(size, inputs, outputs):
    return size * size * inputs * outputs + outputs


def dense(inputs, outputs):
    return inputs * outputs + outputs


CASES = [
    Case(
        "build_cnn",
        ((28, 28, 1), 10),
        images(28, 28, 1),
        classes(10),
        "sparse_categorical_crossentropy",
        {"image": ((None, 28, 28, 1), "float32")},
        (BATCH, 10),
        # The classic net: 28 -> 26 -> 13 -> 11 -> 5.
        conv(3, 1, 32) + conv(3, 32, 64) + dense(5 * 5 * 64, 64) + dense(64, 10),
        label="classic",
    ),
    Case(
        "build_cnn",
        ((8, 9, 3), 4),
        images(8, 9, 3),
        classes(4),
        "sparse_categorical_crossentropy",
        {"image": ((None, 8, 9, 3), "float32")},
        (BATCH, 4),
        # 8x9 -> 4x4 -> 2x2; a normalisation has four numbers per channel and takes the convolution's bias away.
        (5 * 5 * 3 * 6 + 4 * 6) + (5 * 5 * 6 * 8 + 4 * 8) + (5 * 5 * 8 * 8 + 4 * 8) + dense(2 * 2 * 8, 4),
        choices={
            "filters": (6, (8, 8)),
            "kernel_size": 5,
            "padding": "same",
            "units": (),
            "batch_normalization": True,
            "dropout_rate": 0.1,
        },
        label="normalized",
    ),
    Case(
        "build_mlp",
        (784, 10),
        numbers(784),
        classes(10),
        "sparse_categorical_crossentropy",
        {"features": ((None, 784), "float32")},
        (BATCH, 10),
        dense(784, 500) + dense(500, 10),
        label="784-500-10",
    ),
    Case(
        "build_mlp",
        (1000, 10),
        numbers(1000),
        classes(10),
        "sparse_categorical_crossentropy",
        {"features": ((None, 1000), "float32")},
        (BATCH, 10),
        dense(1000, 500) + dense(500, 100) + dense(100, 10),
        choices={"units": (500, 100), "dropout_rate": 0.1},
        label="1000-500-100-10",
    ),
]
