"""Truncated back-propagation through time: a text is read in windows, and what the model remembers is carried on.

Shape letters: B rows of a batch, b those of one replica, T positions of a window, S numbers of the state, V vocabulary.
"""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from recipes.common.parallel import DataParallel
from zoo import layers
from zoo.checks import BadInput
from zoo.models.lstm_text_generator import state_size, with_state

EVALUATION_ROWS = 16  # Parts that a held-out text is read in: few, for at the start of each the model knows nothing.


def evaluation_rows(strategy: tf.distribute.Strategy) -> int:
    """Returns `EVALUATION_ROWS`, or the next number that the replicas of `strategy` share evenly."""
    return math.ceil(EVALUATION_ROWS / strategy.num_replicas_in_sync) * strategy.num_replicas_in_sync


@dataclasses.dataclass(frozen=True)
class Windows:
    """A text for training and evaluation, in rows that are read side by side, window after window.

    Attributes:
        tokens: Ids (N,), of any integer dtype.
        sequence_length: T, positions of a window: as far as the gradient goes back.
        evaluation_rows: Parts that `batches` reads side by side.
    """

    tokens: np.ndarray
    sequence_length: int
    evaluation_rows: int = EVALUATION_ROWS

    @property
    def size(self) -> int:
        """Tokens that are predicted from those before them."""
        return len(self.tokens) - 1

    def steps(self, batch_size: int) -> int:
        """Returns the batches in one pass of training."""
        steps = len(self.tokens) // (batch_size * self.sequence_length)
        if not steps:
            raise BadInput(
                f"--batch-size {batch_size}: the training text has {len(self.tokens):,} tokens, and a batch holds "
                f"{batch_size * self.sequence_length:,} ({batch_size} rows of --sequence-length "
                f"{self.sequence_length}): make one of them smaller."
            )
        return steps

    def training_batches(self, batch_size: int, epoch: tf.Variable, *, seed: int, first_step: int = 0, augment=None):
        """Returns one pass as (inputs, targets); row r of a batch goes on where row r of the one before ended.

        The text is taken for a ring, and each pass begins at another place of it, which `epoch` and `seed` decide: so
        the rows and windows are cut elsewhere each time, and what does not fill a batch is not always the same.

        Args:
            batch_size: B.
            epoch: int64 scalar, read during the pass.
            seed: From 0 to 2**31 - 1.
            first_step: Batches at the start of the pass that are left out: those of before an interruption.
            augment: Must be None.
        """
        steps, length, count = self.steps(batch_size), self.sequence_length, len(self.tokens)
        tokens = tf.constant(self.tokens)

        def window(step):
            key = tf.stack([tf.constant(seed, tf.int64), epoch.value()])
            begin = tf.random.stateless_uniform([], key, maxval=count, dtype=tf.int64)
            rows = begin + tf.range(batch_size, dtype=tf.int64) * steps * length + step * length
            places = (rows[:, None] + tf.range(length + 1, dtype=tf.int64)) % count
            read = tf.cast(tf.gather(tokens, places), tf.int32)
            goes_on = tf.fill((batch_size, 1), tf.cast(step > 0, tf.float32))
            return {"tokens": read[:, :-1], "goes_on": goes_on}, read[:, 1:]

        windows = tf.data.Dataset.range(first_step, steps).map(window, num_parallel_calls=tf.data.AUTOTUNE)
        return windows.prefetch(tf.data.AUTOTUNE)

    def rows(self) -> list[np.ndarray]:
        """Returns the parts that `batches` reads side by side; each begins with the last token of the one before."""
        length = math.ceil(self.size / self.evaluation_rows)
        return [self.tokens[begin : begin + length + 1] for begin in range(0, self.size, length)]

    def batches(self, batch_size: int | None = None) -> tf.data.Dataset:
        """Returns one pass in order as (inputs, targets, weights); every token but the first is predicted once.

        Args:
            batch_size: Of training; the batches here have `evaluation_rows` rows.
        """
        length, rows = self.sequence_length, self.rows()
        steps = math.ceil(max(map(len, rows)) / length)
        padded = np.zeros((self.evaluation_rows, steps * length + 1), np.int32)
        weights = np.zeros((self.evaluation_rows, steps * length), np.float32)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
            weights[index, : len(row) - 1] = 1

        def window(step):
            begin = step * length
            read = tf.constant(padded)[:, begin : begin + length + 1]
            goes_on = tf.fill((self.evaluation_rows, 1), tf.cast(step > 0, tf.float32))
            weight = tf.constant(weights)[:, begin : begin + length]
            return {"tokens": read[:, :-1], "goes_on": goes_on}, read[:, 1:], weight

        return tf.data.Dataset.range(steps).map(window)


class Recurrent(DataParallel):
    """Trains a text generator on `Windows`; what it remembers goes from one batch to the next.

    The state of all rows is a variable: checkpoints hold it whole, whatever the number of replicas, and each replica
    reads and writes the rows that are its own. On CPUs each core trains its share of the rows, all of it (embedding,
    recurrent layers, logits, loss and gradients) compiled by XLA; on GPUs the recurrent layers use cuDNN.

    Args:
        model: Of `build_lstm_text_generator`.
        batch_size: B of training.
        sequence_length: T of training.
        evaluation_rows: Of the `Windows` that it is evaluated on.
        global_clipnorm: See `DataParallel`.
    """

    def __init__(
        self,
        model: keras.Model,
        batch_size: int,
        sequence_length: int,
        *,
        evaluation_rows: int = EVALUATION_ROWS,
        global_clipnorm: float | None = None,
    ):
        super().__init__(model, global_clipnorm=global_clipnorm)
        self.sequence_length = sequence_length
        self.stateful = with_state(model)
        shape = {"initializer": "zeros", "trainable": False, "aggregation": "sum"}
        self.training_state = self.add_weight((batch_size, state_size(model)), name="training_state", **shape)
        self.evaluation_state = self.add_weight((evaluation_rows, state_size(model)), name="evaluation_state", **shape)
        self._learn = tf.function(self._loss_and_gradients, jit_compile=True, autograph=False)

    @property
    def no_text(self) -> tf.Tensor:
        """The state (1, S) before a text."""
        return tf.zeros((1, self.training_state.shape[1]))

    def compile(self, optimizer="adam", **options):
        super().compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)

    def call(self, inputs, training=None):
        carried = self.training_state if training else self.evaluation_state
        logits, state = self.stateful([inputs["tokens"], _own_rows(carried, inputs["goes_on"])], training=training)
        _carry_on(carried, state)
        return logits

    def train_step(self, data):
        if self.compute_dtype != "float32" or tf.config.list_physical_devices("GPU"):
            return super().train_step(data)
        inputs, targets, *_ = data
        state = _own_rows(self.training_state, inputs["goes_on"])
        shape = state.shape[0], self.sequence_length  # Which batches lose when they are shared out among replicas.
        tokens, targets = tf.ensure_shape(inputs["tokens"], shape), tf.ensure_shape(targets, shape)
        shares = layers.core_shares(shape[0])
        weights = [tf.convert_to_tensor(variable.value) for variable in self.trainable_variables]
        others = self.stateful.non_trainable_variables
        values = [tf.convert_to_tensor(variable.value) for variable in others]
        parts = zip(*(tf.split(tensor, shares) for tensor in (tokens, targets, state)), strict=True)
        learned = [self._learn(*part, weights, _apart(others, values, share)) for share, part in enumerate(parts)]
        losses, gradients, states, values = zip(*learned, strict=True)
        for variable, value in zip(others, values[0], strict=True):
            variable.assign(value)
        _carry_on(self.training_state, tf.concat(states, 0))
        count = float(math.prod(shape))
        sums = [
            tf.add_n(parts) / (count * self.distribute_strategy.num_replicas_in_sync)
            for parts in zip(*gradients, strict=True)
        ]
        if self.global_clipnorm:
            sums = self._clip(sums)
        self.optimizer.apply_gradients(zip(sums, self.trainable_variables, strict=True))
        return self._update_metrics(None, None, None, None, tf.add_n(losses), tf.constant(count))

    def _loss_and_gradients(self, tokens, targets, state, weights, others):
        """A core's share: the sum of its losses, its gradients, the state after it, and what became of `others`."""
        with layers.on_one_core(), tf.GradientTape() as tape:
            tape.watch(weights)
            (logits, state), others = self.stateful.stateless_call(weights, others, [tokens, state], training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_sum(losses)
        return loss, [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, weights)], state, others


def _own_rows(carried, goes_on):
    """This replica's rows (b, S) of a state; zeros where `goes_on` (b, 1) is 0, for there a text begins."""
    context = tf.distribute.get_replica_context()
    if context is None:  # Keras builds the model, with rows of any batch.
        return goes_on * tf.zeros((1, carried.shape[1]))
    count = carried.shape[0] // context.num_replicas_in_sync
    return goes_on * tf.slice(carried.value, [context.replica_id_in_sync_group * count, 0], [count, -1])


def _carry_on(carried, state):
    """Keeps this replica's rows; the variable sums what the replicas assign."""
    context = tf.distribute.get_replica_context()
    if context is not None:
        count = carried.shape[0] // context.num_replicas_in_sync
        before = context.replica_id_in_sync_group * count
        carried.assign(tf.pad(state, [[before, carried.shape[0] - count - before], [0, 0]]))


def _apart(variables, values, share):
    """The values of dropout's seeds, other ones for each share, and of what else there is."""
    return [
        tf.stack([value[0] + tf.cast(0x9E3779B9 * share % 2**32, value.dtype), value[1]])
        if "seed_generator_state" in variable.path
        else value
        for variable, value in zip(variables, values, strict=True)
    ]
