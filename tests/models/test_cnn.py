"""What is special to the CNN: its classic form layer by layer, and images too small for it."""

import keras
import numpy as np
import pytest

from zoo import build_cnn
from zoo.checks import BadInput


def test_defaults_are_the_classic_net():
    model = build_cnn((28, 28, 1), 10)
    layers = [layer for layer in model.layers if layer.weights or isinstance(layer, keras.layers.MaxPooling2D)]
    plan = [(type(layer).__name__, tuple(layer.output.shape[1:])) for layer in layers]
    assert plan == [
        ("Conv2D", (26, 26, 32)),
        ("MaxPooling2D", (13, 13, 32)),
        ("Conv2D", (11, 11, 64)),
        ("MaxPooling2D", (5, 5, 64)),
        ("Dense", (64,)),
        ("Dense", (10,)),
    ]


def test_equals_the_net_written_in_plain_keras():
    plain = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model = build_cnn((28, 28, 1), 10)
    plain.set_weights(model.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1)).astype("float32")
    np.testing.assert_allclose(model(images), plain(images / 255), rtol=1e-5, atol=1e-6)


def test_uint8_and_float_images_are_the_same():
    model = build_cnn((28, 28, 1), 10)
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    np.testing.assert_array_equal(model.predict(images, verbose=0), model.predict(images.astype("float32"), verbose=0))


@pytest.mark.parametrize(
    ("shape", "filters", "padding", "block"),
    [
        ((8, 8, 1), (4, 4), "valid", 2),
        ((28, 9, 1), (4, 4), "valid", 2),
        ((7, 7, 3), (4, 4, 4), "same", 3),
        ((6, 6, 1), ((4, 4), 4), "valid", 2),
    ],
)
def test_too_small_an_image_says_where_it_vanishes(shape, filters, padding, block):
    with pytest.raises(
        BadInput, match=rf"input_shape={shape!r}.*block {block} of".replace("(", r"\(").replace(")", r"\)")
    ):
        build_cnn(shape, 10, filters=filters, padding=padding)


def test_the_smallest_image_that_fits():
    assert build_cnn((10, 10, 1), 2).output_shape == (None, 2)
    assert build_cnn((8, 8, 1), 2, filters=(4, 4, 4), padding="same").output_shape == (None, 2)


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ({"filters": ()}, "filters="),
        ({"filters": 32}, "filters="),
        ({"filters": (32, 0)}, r"filters\[1\]\[0\]=0"),
        ({"filters": (32, ())}, r"filters\[1\]="),
        ({"kernel_size": 0}, "kernel_size=0"),
        ({"units": (64, -1)}, r"units\[1\]=-1"),
        ({"units": 64}, "units=64"),
        ({"padding": "full"}, "'valid', 'same'"),
        ({"dropout_rate": 1.0}, r"\[0, 1\)"),
        ({"dropout_rate": -0.1}, r"\[0, 1\)"),
        ({"dropout_rate": float("nan")}, r"\[0, 1\)"),
        ({"dropout_rate": "0.5"}, r"\[0, 1\)"),
    ],
)
def test_bad_choices(choices, told):
    with pytest.raises(ValueError, match=told):
        build_cnn((28, 28, 1), 10, **choices)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1, 1), 28, "28", (28, 28, None)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match="input_shape"):
        build_cnn(shape, 10)


def test_one_class_is_too_few():
    with pytest.raises(ValueError, match="num_classes=1"):
        build_cnn((28, 28, 1), 1)
