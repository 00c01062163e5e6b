"""Tokenizers: from text to token ids and back, by the same TensorFlow operations in training and in a served graph.

Shape letters: B texts, T tokens of the longest, N tokens of one text.

Tokens are the same wherever a text is cut before it is tokenized, as long as the cut is at a `Tokenizer.boundary`: so a
text of any length is tokenized piece by piece.
"""

import functools
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from zoo import checks
from zoo.checks import BadInput

UNKNOWN = "\ufffd"  # The text of what is not in the vocabulary: Unicode's own sign for it.
NEW_LINE = b"\n"
PIECE_BYTES = 1 << 20  # Of a text that is tokenized on the host, at a time.
MOST_WORDS = 10_000  # Of a vocabulary of words, the unknown one included, unless another size is asked for.
WORDS = r"( ?[\pL\pN\pM_]+|[^\s\pL\pN\pM_]|\s)"  # Every character is in one of the three: nothing is lost.
NEVER_IN_UTF8 = b"\xff"


class Tokenizer:
    """Turns text into token ids and back. `train` and `from_dict` make one; each kind is a subclass.

    Attributes:
        kind: Its name in `KINDS`.
        vocabulary: The bytes that each id stands for.
        unknown: The id of whatever is not in the vocabulary; None where everything is.
        needs_utf8: Whether a text must be UTF-8.
        tracked: What an export has to track; see `zoo.serving.export`.
    """

    kind: str
    unknown: int | None = 0
    needs_utf8 = True
    tracked: tuple = ()
    _begins: re.Pattern[bytes]  # A byte that can only be the first one of a token.

    def __init__(self, vocabulary: Sequence[bytes]):
        self.vocabulary = tuple(vocabulary)

    @property
    def vocabulary_size(self) -> int:
        return len(self.vocabulary)

    @property
    def empty_prompt(self) -> int:
        """The id that stands before an empty prompt: a new line where the vocabulary has it, else its commonest."""
        return self.vocabulary.index(NEW_LINE) if NEW_LINE in self.vocabulary else 1  # Ordered by how common they are.

    def tokenize(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the ids of texts (B,), string; works inside a graph.

        Returns:
            (tokens (B, T) int32, padded with 0, T at least 1; lengths (B,) int32).

        Raises:
            tf.errors.InvalidArgumentError: If a text must be UTF-8 and is not; the message names its row.
        """
        raise NotImplementedError

    def split(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Returns the texts (B, None) of the tokens of `texts` (B,), known or not: joined they give the whole again."""
        raise NotImplementedError

    def detokenize(self, tokens: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Returns the texts (B,), valid UTF-8, of the first `lengths` (B,) of `tokens` (B, T), int32, in a graph."""
        spelled = tf.gather(tf.constant(self.vocabulary), tokens)
        within = tf.sequence_mask(lengths, tf.shape(tokens)[1])
        return tf.strings.reduce_join(tf.where(within, spelled, ""), axis=1)

    def encode(self, text: str | bytes) -> np.ndarray:
        """Returns the ids (N,) int32 of a text: those that `tokenize` gives.

        Raises:
            ValueError: If the text must be UTF-8 and is not.
        """
        ids = [np.zeros(0, np.int32)]
        with tf.device("CPU:0"):
            for piece in self.pieces(text):
                tokens, lengths = self._compiled(tf.constant([piece]))
                ids.append(tokens[0, : lengths[0]].numpy())
        return np.concatenate(ids)

    @functools.cached_property
    def _compiled(self):
        return tf.function(self.tokenize, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Returns the text of ids (N,): the one that `detokenize` gives."""
        with tf.device("CPU:0"):
            tokens = tf.constant(np.asarray(ids, np.int32)[np.newaxis])
            return self.detokenize(tokens, tf.shape(tokens)[1:]).numpy()[0].decode()

    def head(self, text: str | bytes, count: int) -> bytes:
        """Returns the beginning of a text that its first `count` tokens are made of."""
        return b"".join(itertools.islice(self.spell(text), count))

    def spell(self, text: str | bytes) -> Iterator[bytes]:
        """Yields what each token of a text is made of, known or not; see `encode`."""
        return _spelling(self, text)

    @classmethod
    def pieces(cls, text: str | bytes, size: int | None = None) -> Iterator[bytes]:
        """Yields a text in pieces of `size` bytes (`PIECE_BYTES`) or a little more, cut between tokens."""
        contents, begin = contents_of(text, cls.needs_utf8), 0
        while begin < len(contents):
            end = cls.boundary(contents, begin + (size or PIECE_BYTES))
            yield contents[begin:end]
            begin = end

    @classmethod
    def boundary(cls, contents: bytes, place: int) -> int:
        """Returns a place between two tokens, or the text's end, as soon after byte `place` as one is surely there."""
        found = cls._begins.search(contents, place)
        return found.start() if found else len(contents)

    def to_dict(self) -> dict:
        """Returns what JSON can hold and `from_dict` makes the same tokenizer of."""
        return {"kind": self.kind}

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes the files of published checkpoints, which `from_pretrained` and the library `transformers` read.

        Args:
            folder: Made if absent. Subwords become `vocab.json` and `merges.txt`, as GPT-2's; wordpieces `vocab.txt`,
                as BERT's; each with a `tokenizer_config.json`.

        Raises:
            ValueError: If the tokenizer is of another kind.
        """
        raise BadInput(f"a tokenizer of {self.kind} has no published format; those of subwords and wordpieces have.")


class Bytes(Tokenizer):
    """One token per byte: its id is the byte's value. Every text will do, UTF-8 or not, and nothing is unknown."""

    kind = "bytes"
    unknown = None
    needs_utf8 = False
    _begins = re.compile(rb"[\x00-\xff]")

    def __init__(self):
        super().__init__([bytes([value]) for value in range(256)])

    @classmethod
    def train(cls, text: str | bytes, vocabulary_size: int | None) -> "Bytes":
        if vocabulary_size not in (None, 256):
            raise BadInput(f"vocabulary_size={vocabulary_size!r}: there are 256 bytes; leave it out.")
        values = set(contents_of(text, utf8=False))
        if len(values) < 2:
            refuse_monotony(*(bytes([value]) for value in values))
        return cls()

    def tokenize(self, texts):
        lengths = tf.strings.length(texts)
        longest = tf.maximum(tf.reduce_max(lengths), 1)
        return tf.cast(tf.io.decode_raw(texts, tf.uint8, fixed_length=longest), tf.int32), lengths

    @staticmethod
    def split(texts):
        return tf.strings.bytes_split(texts)

    def detokenize(self, tokens, lengths):
        joined = super().detokenize(tokens, lengths)
        return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")


class Counted(Tokenizer):
    """Knows the commonest tokens of the text it was trained on: id 0 is unknown, then they follow, commonest first.

    Args:
        vocabulary: The text of each id, "\\ufffd" first. In a text that sign is unknown, too.
    """

    default_size: int | None = None

    def __init__(self, vocabulary: Sequence[str]):
        if len(vocabulary) < 3 or vocabulary[0] != UNKNOWN or len(set(vocabulary)) < len(vocabulary):
            raise BadInput(f"vocabulary={shortened(vocabulary)}: it must be {UNKNOWN!r}, then 2 or more others.")
        super().__init__([token.encode() for token in vocabulary])

    @classmethod
    def train(cls, text: str | bytes, vocabulary_size: int | None) -> "Counted":
        size = cls.default_size if vocabulary_size is None else checks.vocabulary_size(vocabulary_size)
        if size == 2:
            raise BadInput("vocabulary_size=2: one is for what is unknown, so at least 3 are needed.")
        counts = Counter(_spelling(cls, text))
        del counts[UNKNOWN.encode()]
        if len(counts) < 2:
            refuse_monotony(*counts)
        tokens = sorted(counts, key=lambda token: (-counts[token], token))
        return cls([UNKNOWN, *(token.decode() for token in tokens[: size and size - 1])])

    def to_dict(self) -> dict:
        return super().to_dict() | {"vocabulary": [token.decode() for token in self.vocabulary]}

    @staticmethod
    def _parts(texts: tf.Tensor) -> tf.RaggedTensor:
        """What the tokens of `texts` (B,) are looked up by."""
        raise NotImplementedError

    def _ids(self, parts: tf.Tensor) -> tf.Tensor:
        """Ids (N,) int32 of parts (N,)."""
        raise NotImplementedError

    def tokenize(self, texts):
        parts = self._parts(valid(texts))
        return padded(parts.with_flat_values(self._ids(parts.flat_values)))


class Characters(Counted):
    """One token per character, as Unicode counts them: a code point."""

    kind = "characters"
    _begins = re.compile(rb"[^\x80-\xbf]")

    def __init__(self, vocabulary: Sequence[str]):
        super().__init__(vocabulary)
        if any(len(token) != 1 for token in vocabulary):
            raise BadInput(f"vocabulary={shortened(vocabulary)}: each must be a single character.")
        code_points = np.array([ord(token) for token in vocabulary], np.int32)
        self._order = np.argsort(code_points).astype(np.int32)
        self._code_points = code_points[self._order]

    @staticmethod
    def split(texts):
        return tf.strings.unicode_split(texts, "UTF-8")

    @staticmethod
    def _parts(texts):
        return tf.strings.unicode_decode(texts, "UTF-8")

    def _ids(self, parts):
        places = tf.minimum(tf.searchsorted(self._code_points, parts), self.vocabulary_size - 1)
        return tf.where(tf.equal(tf.gather(self._code_points, places), parts), tf.gather(self._order, places), 0)


class Words(Counted):
    """Words that take the space before them along, and single punctuation marks, spaces and line breaks.

    A word is a run of letters, digits, marks and underscores: " don't" are three tokens, " don", "'" and "t".
    """

    kind = "words"
    default_size = MOST_WORDS
    _begins = re.compile(rb"[^0-9A-Za-z_\x80-\xff]")

    def __init__(self, vocabulary: Sequence[str]):
        super().__init__(vocabulary)
        ids = tf.lookup.KeyValueTensorInitializer(list(self.vocabulary), tf.range(self.vocabulary_size))
        self._table = tf.lookup.StaticHashTable(ids, default_value=0)
        self.tracked = (self._table,)

    @staticmethod
    def split(texts):
        # TensorFlow cannot list what a pattern matches: a byte that no text has is put behind each, to split there.
        marked = tf.strings.regex_replace(texts, WORDS, rb"\1" + NEVER_IN_UTF8)
        words = tf.strings.split(marked, NEVER_IN_UTF8)
        return tf.ragged.boolean_mask(words, tf.ragged.map_flat_values(tf.not_equal, words, ""))

    _parts = split

    def _ids(self, parts):
        return self._table.lookup(parts)


@functools.cache
def _kinds():
    from zoo.subwords import Subwords, WordPieces  # Not before: they are built upon what is above.

    return {kind.kind: kind for kind in (Characters, Bytes, Words, Subwords, WordPieces)}


KINDS: Mapping[str, type[Tokenizer]]  # By their names.


def __getattr__(name):
    if name == "KINDS":
        return _kinds()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def train(kind: str, text: str | bytes, *, vocabulary_size: int | None = None) -> Tokenizer:
    """Makes a tokenizer from the text that a model will be trained on.

    Args:
        kind: `"characters"`, `"bytes"`, `"words"`, `"subwords"` (GPT-2's byte pairs) or `"wordpieces"` (BERT's); the
            last two need the library `tokenizers`, for this alone.
        text: The text, UTF-8 unless the kind is bytes.
        vocabulary_size: Ids at most, that of the unknown included: the commonest tokens have one. By default all
            characters of the text, 10,000 words, or 8,000 subwords or wordpieces; bytes are always 256.

    Raises:
        ValueError: If there is no such kind, the text is not UTF-8, it has fewer than two different tokens, the
            vocabulary has no room for two, or `tokenizers` is not installed.

    Example:

    >>> from zoo import tokenizers
    >>> tokenizer = tokenizers.train("words", "the cat and the dog and the bird")
    >>> tokenizer.vocabulary[1:4]
    (b' and', b' the', b' bird')
    >>> tokenizer.encode("the bird and the fish").tolist()
    [6, 3, 1, 2, 0]
    """
    return _kinds()[checks.one_of("kind", kind, tuple(_kinds()))].train(text, vocabulary_size)


def from_dict(description: Mapping) -> Tokenizer:
    """Returns the tokenizer that `Tokenizer.to_dict` has described; raises `BadInput` if it has not."""
    options = dict(description)
    kind = _kinds()[checks.one_of("kind", options.pop("kind", None), tuple(_kinds()))]
    try:
        return kind(**options)
    except TypeError as error:
        raise BadInput(f"{shortened(description)} describes no tokenizer of {kind.kind}: {error}.") from None


def from_pretrained(folder: str | os.PathLike) -> Tokenizer | None:
    """Returns the tokenizer of a published checkpoint, as GPT-2 or BERT has it.

    Args:
        folder: It is read from `tokenizer.json`, else from `vocab.json` and `merges.txt` (GPT-2's), else from
            `vocab.txt` and, where there is one, `tokenizer_config.json` (BERT's).

    Returns:
        Its ids are those of the library `transformers`, without the special tokens that it adds, and with the spelling
        of a special token taken for text like any other. None if the folder has none of these files.

    Raises:
        ValueError: If there is no such folder, a file cannot be read, or it describes a tokenizer of another kind; the
            message names the file.
    """
    from zoo import subwords

    return subwords.read(folder)


def contents_of(text, utf8):
    """Returns a text as bytes; raises `BadInput` if it should be UTF-8 and is not."""
    try:
        contents = text.encode() if isinstance(text, str) else bytes(text)
        if utf8 and not isinstance(text, str):
            contents.decode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"the text is not Unicode: character {error.start + 1} is half of a pair ({text[error.start]!r}). Read it "
            "with the encoding that it was written in."
        ) from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"the text is not UTF-8: the byte at offset {error.start} is 0x{contents[error.start]:02x}. Convert it, or "
            "take tokens of the kind 'bytes'."
        ) from None
    return contents


def padded(ids):
    """Returns ragged ids (B, None) as `Tokenizer.tokenize` does: (B, T), padded with 0, T at least 1, and lengths."""
    tokens = ids.to_tensor()
    empty = tf.cast(tf.equal(tf.shape(tokens)[1], 0), tf.int32)
    return tf.pad(tokens, [[0, 0], [0, empty]]), tf.cast(ids.row_lengths(), tf.int32)


def valid(texts):
    """Returns `texts` (B,); fails if one is not UTF-8."""
    valid = tf.equal(tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace"), texts)
    row = tf.argmin(tf.concat([tf.cast(valid, tf.int32), [0]], 0))  # Of the first that is not.
    message = tf.strings.format("row {} is not valid UTF-8 (rows count from 0): encode it as UTF-8", row)
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(valid), [message])]):
        return tf.identity(texts)


def _spelling(kind, text):
    for piece in kind.pieces(text):
        yield from kind.split(tf.constant([piece])).flat_values.numpy()


def refuse_monotony(*tokens):
    told = f"only one token, {tokens[0].decode(errors='replace')!r}, again and again" if tokens else "no token"
    raise BadInput(f"the text has {told}; at least 2 different ones are needed.")


def shortened(value):
    return str(value)[:100]
