"""The fused Adam is Keras's Adam."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from recipes.common.optimizers import FusedAdam

OPTIONS = {
    "plain": {},
    "other-constants": {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
    "schedule": {"learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 20)},
    "weight-decay": {"weight_decay": 0.1},
    "moving-average": {"use_ema": True, "ema_momentum": 0.5},
    "amsgrad": {"amsgrad": True},
}


def after_some_steps(optimizer, strategy):
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    x, y = random.integers(0, 9, (16, 4)), random.normal(size=(16, 1))
    with strategy.scope():
        inputs = keras.Input((4,), dtype="int32")
        hidden = keras.layers.Flatten()(keras.layers.Embedding(9, 3)(inputs))  # A gradient of IndexedSlices.
        model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
        model.compile(optimizer(), "mse")
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(10), epochs=2, shuffle=False, verbose=0)
    return model.get_weights()


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_equals_keras(options, replicas, two_replicas):
    strategy = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    options = {"learning_rate": 0.1, **options}
    expected = after_some_steps(lambda: keras.optimizers.Adam(**options), strategy)
    found = after_some_steps(lambda: FusedAdam(**options), strategy)
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_allclose(two, one, rtol=2e-4, atol=2e-5)
