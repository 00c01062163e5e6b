"""Exports of text classifiers: texts as they are in, labels and probabilities out.

Shape letters: B texts, T positions of a row, K classes.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from zoo.checks import BadInput
from zoo.serving import export, plain_copy
from zoo.subwords import FIRST, LAST, PADDING, WordPieces
from zoo.tokenizers import padded

ENDS = 2  # [CLS] before a text and [SEP] behind it.


def export_text_classifier(
    model: keras.Model,
    tokenizer: WordPieces,
    class_names: Sequence[str],
    export_dir: str | os.PathLike,
    *,
    examples: Sequence[str],
    sequence_length: int | None = None,
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Writes a text classifier as `<export_dir>/<next version>/`, a SavedModel that takes texts as they are.

    `serving_default`: `text` (B,) string, UTF-8, of any length and also empty. Returns:

    - `label` (B,) string, `probabilities` (B, K) float32, and `classes` (B, K) string: the names in the order of the
      probabilities;
    - `tokens` (B,) int32: how many a text has; `cut` (B,) int32: how many of them, at its end, were not read, for the
      model has no positions for them; `unknown` (B,) int32: how many the vocabulary lacks.

    A text that is not UTF-8 is an InvalidArgumentError that names its row. What a text gets depends on it alone.

    Args:
        model: A `zoo.build_bert` with `num_classes`.
        tokenizer: WordPieces, the ones that the model was trained with.
        class_names: The K names, in the order of the model's output.
        export_dir: Folder of this model's versions; made if absent.
        examples: Texts, at least one; they become the warm-up requests.
        sequence_length: Positions of a text at most, [CLS] and [SEP] included. None: all that the model has.
        check: Called with the finished export before any server can see it; what it raises discards the export.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: If the arguments do not fit together, or `export_dir` cannot be written.
    """
    if isinstance(examples, str) or not len(examples):
        raise BadInput(f"examples={examples!r}: needed is a list of texts, at least one.")
    if len(getattr(model, "output_shape", ())) != 2 or model.layers[-1].name != "probabilities":
        raise BadInput(f"model {model.name!r} is no classifier: build it by build_bert with num_classes.")
    num_classes = model.output_shape[-1]
    if len(class_names) != num_classes or len(set(class_names)) != num_classes:
        raise BadInput(
            f"class_names={list(class_names)!r}: the model has {num_classes} classes; give each a name of its own."
        )
    check_tokenizer(tokenizer, model)
    positions = check_sequence_length(sequence_length, model)
    served = plain_copy(model)
    names = tf.constant([str(class_name) for class_name in class_names])

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="text")], autograph=False)
    def serving_default(text):
        tokens, lengths, unknown = to_rows(tokenizer, text, positions)
        inputs = {"tokens": tokens, "segments": tf.zeros_like(tokens)}
        probabilities = tf.cast(served(inputs, training=False), tf.float32)
        return {
            "label": tf.gather(names, tf.argmax(probabilities, axis=-1)),
            "probabilities": probabilities,
            "classes": tf.tile(names[tf.newaxis], (tf.size(text), 1)),
            "tokens": lengths,
            "cut": tf.maximum(lengths - (positions - ENDS), 0),
            "unknown": unknown,
        }

    texts = np.array([str(example).encode() for example in examples], object)
    return export(
        {"serving_default": serving_default},
        [variable.value for variable in served.variables],
        export_dir,
        name=model.name,
        warmup_requests=[("serving_default", {"text": texts[:1]}), ("serving_default", {"text": texts})],
        tracked=tokenizer.tracked,
        check=check,
    )


def to_rows(tokenizer: WordPieces, texts: tf.Tensor, sequence_length: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Makes a BERT's rows of texts (B,), string, the same way for training and for serving; works inside a graph.

    Args:
        tokenizer: See `check_tokenizer`.
        texts: UTF-8.
        sequence_length: Positions of a row at most, 3 or more; what is too long is cut at its end.

    Returns:
        tokens: (B, T) int32: [CLS], the text's tokens, [SEP], then zeros; T is that of the longest row.
        lengths: (B,) int32, tokens that the texts have, without those two.
        unknown: (B,) int32, how many of them the vocabulary lacks.

    Raises:
        tf.errors.InvalidArgumentError: If a text is not UTF-8; the message names its row.
    """
    ids, lengths = tokenizer.tokenize(texts)
    ragged = tf.RaggedTensor.from_tensor(ids, lengths)
    unknown = tf.reduce_sum(tf.cast(ragged == tokenizer.unknown, tf.int32), axis=1)
    rows, _ = padded(with_ends(tokenizer, ragged[:, : sequence_length - ENDS]))
    return rows, lengths, unknown


def with_ends(tokenizer: WordPieces, ids: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
    """Returns ids (B, T - 2), int32, between [CLS] and [SEP]: (B, T), ragged where they are."""
    column = tf.ones_like(ids[:, :1]) if isinstance(ids, tf.Tensor) else tf.ones((ids.nrows(), 1), tf.int32)
    return tf.concat([column * tokenizer.special[FIRST], ids, column * tokenizer.special[LAST]], axis=1)


def check_tokenizer(tokenizer: object, model: keras.Model, *more: str) -> None:
    """Raises `BadInput` unless a tokenizer has [PAD], [CLS], [SEP] and `more`, and no more tokens than `model`."""
    needed = (FIRST, LAST, *more)
    if not isinstance(tokenizer, WordPieces):
        kind = getattr(tokenizer, "kind", None)
        raise BadInput(f"the tokenizer is of {kind or tokenizer!r}: {model.name} needs wordpieces, as BERT has them.")
    lacking = [token for token in needed if token not in tokenizer.special]
    if lacking or tokenizer.special.get(PADDING) != 0:
        raise BadInput(
            f"the tokenizer has {', '.join(tokenizer.special)}; needed are {', '.join(needed)} and, as token 0, "
            f"{PADDING}."
        )
    size = model.get_layer("embedding").input_dim
    if tokenizer.vocabulary_size > size:
        raise BadInput(
            f"the tokenizer has {tokenizer.vocabulary_size} tokens, model {model.name!r} {size}: take the one that the "
            "model was trained with."
        )


def check_sequence_length(sequence_length: int | None, model: keras.Model) -> int:
    """Returns `sequence_length`, None being all of the model's positions; raises `BadInput` if it cannot be."""
    most = model.get_layer("positions").max_sequence_length
    if most <= ENDS:
        raise BadInput(
            f"model {model.name!r} has {most} positions, and a row of one token needs {ENDS + 1}, for [CLS] and [SEP] "
            "are in it: build it with more."
        )
    if sequence_length is None:
        return most
    if not ENDS < sequence_length <= most:
        raise BadInput(
            f"sequence_length={sequence_length}: the model has {most} positions, two of a row are for [CLS] and [SEP]; "
            f"choose from {ENDS + 1} to {most}."
        )
    return sequence_length
