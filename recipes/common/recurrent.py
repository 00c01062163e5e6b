"""Truncated back-propagation through time: a text is read in windows, and what the model remembers is carried on.

Shape letters: B rows of a batch, b those of one replica, T positions of a window, S numbers of the state, V vocabulary.
"""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from recipes.common.parallel import OnCores
from zoo.checks import BadInput
from zoo.models.lstm_text_generator import state_size, with_state

PARTS = 16  # That a held-out text is read in: few, for at the start of each the model knows nothing.


def evaluation_rows(strategy: tf.distribute.Strategy) -> int:
    """Returns `PARTS`, or the next number of rows that the replicas of `strategy` share evenly."""
    return math.ceil(PARTS / strategy.num_replicas_in_sync) * strategy.num_replicas_in_sync


@dataclasses.dataclass(frozen=True)
class Windows:
    """A text for training and evaluation, in rows that are read side by side, window after window.

    Attributes:
        tokens: Ids (N,), of any integer dtype.
        sequence_length: T, positions of a window: as far as the gradient goes back.
        evaluation_rows: Rows of the batches that `batches` gives, at least `PARTS`.
    """

    tokens: np.ndarray
    sequence_length: int
    evaluation_rows: int = PARTS

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
        tokens = self._on_cpu()

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

    def _on_cpu(self):
        with tf.device("CPU:0"):  # Where input pipelines run.
            return tf.constant(self.tokens)

    def rows(self) -> list[np.ndarray]:
        """Returns the parts that `batches` reads side by side; each begins with the last token of the one before."""
        length = math.ceil(self.size / PARTS)
        return [self.tokens[begin : begin + length + 1] for begin in range(0, self.size, length)]

    def batches(self, batch_size: int | None = None) -> tf.data.Dataset:
        """Returns one pass in order as (inputs, targets, weights); every token but the first is predicted once.

        Args:
            batch_size: Of training; the batches here have `evaluation_rows` rows, the last ones perhaps of weight 0.
        """
        length, size = self.sequence_length, self.size
        row_length = math.ceil(size / PARTS)
        tokens, rows = self._on_cpu(), tf.range(self.evaluation_rows)[:, None]

        def window(step):
            begin = tf.cast(step, tf.int32) * length
            places = rows * row_length + begin + tf.range(length + 1)
            read = tf.cast(tf.gather(tokens, tf.minimum(places, size)), tf.int32)
            own = (begin + tf.range(length) < row_length) & (places[:, :-1] < size)
            goes_on = tf.fill((self.evaluation_rows, 1), tf.cast(step > 0, tf.float32))
            return {"tokens": read[:, :-1], "goes_on": goes_on}, read[:, 1:], tf.cast(own, tf.float32)

        return tf.data.Dataset.range(math.ceil(row_length / length)).map(window)


class Recurrent(OnCores):
    """Trains a text generator on `Windows`; what it remembers goes from one batch to the next.

    The state of all rows is a variable: checkpoints hold it whole, whatever the number of replicas, and each replica
    reads and writes the rows that are its own. On CPUs each core learns from its share of the rows; on GPUs the
    recurrent layers use cuDNN.

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
        evaluation_rows: int = PARTS,
        global_clipnorm: float | None = None,
    ):
        super().__init__(model, batch_size, global_clipnorm=global_clipnorm)
        self.network, self.sequence_length = with_state(model), sequence_length
        self.training_state = self.add_weight(
            (batch_size, state_size(model)), "zeros", trainable=False, aggregation="sum", name="training_state"
        )
        # No weight of the model, and in no checkpoint: it is zero wherever an evaluation begins.
        self.evaluation_state = tf.Variable(
            tf.zeros((evaluation_rows, state_size(model))), trainable=False, aggregation=tf.VariableAggregation.SUM
        )

    def compile(self, optimizer="adam", **options):
        super().compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)

    def call(self, inputs, training=None):
        carried = self.training_state if training else self.evaluation_state
        logits, state = self.network([inputs["tokens"], _own_rows(carried, inputs["goes_on"])], training=training)
        _carry_on(carried, state)
        return logits

    def network_inputs(self, x):
        state = _own_rows(self.training_state, x["goes_on"])
        # Batches lose their shape when they are shared out among replicas; the recurrent layers need it.
        return [tf.ensure_shape(x["tokens"], (state.shape[0], self.sequence_length)), state]

    def keep_states(self, states):
        _carry_on(self.training_state, tf.concat([state for (state,) in states], 0))


def _own_rows(carried, goes_on):
    """This replica's rows (b, S) of a state; zeros where `goes_on` (b, 1) is 0, for there a text begins."""
    context = tf.distribute.get_replica_context()
    if context is None:  # Keras builds the model, with rows of any batch.
        return goes_on * tf.zeros((1, carried.shape[1]), goes_on.dtype)
    count = carried.shape[0] // context.num_replicas_in_sync
    rows = tf.slice(carried, [context.replica_id_in_sync_group * count, 0], [count, -1])
    return tf.cast(goes_on, rows.dtype) * rows  # In mixed precision one of them is narrower.


def _carry_on(carried, state):
    """Keeps this replica's rows; the variable sums what the replicas assign."""
    context = tf.distribute.get_replica_context()
    if context is not None:
        count = carried.shape[0] // context.num_replicas_in_sync
        before = context.replica_id_in_sync_group * count
        carried.assign(tf.pad(state, [[before, carried.shape[0] - count - before], [0, 0]]))
