"""Pairs of texts to learn translation from, as ids: generated dates, files of pairs, and what TFDS has.

Shape letters: N pairs, B rows, S positions of a source, T positions of a decoder: the target and one more.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from recipes.common import dates, tfds_sets
from recipes.common.data import Split
from zoo import checks, tokenizers
from zoo.checks import BadInput
from zoo.tokenizers import Tokenizer

PADDING, BEGIN, END = range(3)
SPECIALS = 3  # A tokenizer's ids begin behind them.

PARTS = ("train", "validation", "test")
SIDES = ("source", "target")
HELD_OUT = 0.05  # Of the pairs, for validation; as much again for testing.
QUICK_PAIRS = 64  # Of each held-out split in a dry run.
MOST_BYTES = 1 << 28  # Of the texts: they are held in memory, with their ids.
TOKENIZED_BYTES = 1 << 20  # At a time, all rows as long as the longest.
NUMBERS_SHOWN = 5  # Of the lines that are wrong.
BYTE_ORDER_MARK = "\ufeff".encode()
UNDERSTOOD = (
    "dates, a file of pairs (UTF-8, in each line the source, a tab and the target), or a TFDS set of translations, "
    "such as ted_hrlr_translate/pt_to_en"
)

Pair = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class PairSplit:
    """Pairs of texts, and their ids.

    Attributes:
        texts: (source, target) of each pair.
        sources: (N, S) int32: `to_ids` of the sources.
        targets: (N, T + 1) int32: `to_ids` of the targets, between `BEGIN` and `END`.
    """

    texts: list[Pair]
    sources: np.ndarray
    targets: np.ndarray

    def split(self) -> Split:
        """Returns what a `zoo.build_transformer` learns: from a source and its target's tokens so far, the next one.

        Its inputs are `source` (N, S) and `target` (N, T), its labels (N, T), where `PADDING` is to be left out.
        """
        return Split.in_memory({"source": self.sources, "target": self.targets[:, :-1]}, self.targets[:, 1:])

    def references(self) -> dict[str, list[str]]:
        """Returns every source once, with all its targets; sources that `normalised` makes equal are one."""
        spellings, found = {}, {}
        for source, target in self.texts:
            found.setdefault(spellings.setdefault(normalised(source), source), []).append(target)
        return found


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of texts in three splits.

    Attributes:
        name: What to call them.
        source_tokenizer, target_tokenizer: Trained on their side of the training split.
        train, validation, test: The pairs; S and T are the same in all three.
        too_long: Pairs that were left out of the training split.
        cut: Split held out -> pairs whose ids, but not whose texts, were cut.
        fingerprint: SHA-256 of the ids and the vocabularies.
    """

    name: str
    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    train: PairSplit
    validation: PairSplit
    test: PairSplit
    too_long: int
    cut: dict[str, int]
    fingerprint: str

    @property
    def source_vocabulary_size(self) -> int:
        """Ids that a source may have: the tokens and `SPECIALS`."""
        return self.source_tokenizer.vocabulary_size + SPECIALS

    @property
    def target_vocabulary_size(self) -> int:
        """Ids that a target may have: the tokens and `SPECIALS`."""
        return self.target_tokenizer.vocabulary_size + SPECIALS

    def describe(self) -> dict:
        """Returns what `run.json` says of the data."""
        splits = {part: getattr(self, part) for part in PARTS}
        held_out = {part: splits[part] for part in PARTS[1:]}
        trained = dict(zip(SIDES, (self.source_tokenizer, self.target_tokenizer), strict=True))
        return {
            "name": self.name,
            "tokens": self.source_tokenizer.kind,
            "vocabulary_size": {side: tokenizer.vocabulary_size for side, tokenizer in trained.items()},
            "sizes": {part: len(split.texts) for part, split in splits.items()},
            "different_sources": {part: len(_keys(split, 0)) for part, split in splits.items()},
            "too_long_for_training": self.too_long,
            "cut": self.cut,
            "unknown": {
                part: {
                    "source": _unknown_share(self.source_tokenizer, split.sources),
                    "target": _unknown_share(self.target_tokenizer, split.targets),
                }
                for part, split in held_out.items()
            },
            "also_in_training": {
                part: {side: len(_keys(split, place) & _keys(self.train, place)) for place, side in enumerate(SIDES)}
                for part, split in held_out.items()
            },
            "fingerprint": self.fingerprint,
        }


def load(
    name: str,
    *,
    kind: str,
    source_vocabulary_size: int | None = None,
    target_vocabulary_size: int | None = None,
    max_length: int,
    limit: int | None = None,
    quick: bool = False,
) -> Pairs:
    """Loads pairs of texts in three splits, as ids.

    White space around a text is dropped. A pair that is there twice (as `normalised` sees it) counts once. The pairs
    of a split are in the order of a hash of their sources, whatever order they came in.

    Args:
        name: `"dates"` (see `recipes.common.dates`), the path of a file of pairs, or a TFDS name such as
            `"ted_hrlr_translate/pt_to_en"`. A file is UTF-8, and has in each line the source, a tab, the target, and
            perhaps another tab and more, which is ignored; quotes are letters like any other; a first line that says
            "source" and "target" is a header. About 5 % of it are for testing and 5 % for validation, chosen by a hash
            of the source. Sources that share a target, and whatever is linked in that way, are in one split, so that
            neither side of a pair held out is in training, unless that would hold together more than 5 % of all: then
            those are split by their sources alone. Of a TFDS set (translations, or two texts of which one is to
            be made from the other) its own splits are used; without a test split, its validation split is for
            testing. What is still missing is taken from its training split as from a file.
        kind: Of the tokens of both sides: see `zoo.tokenizers.train`. The vocabularies are those of the whole
            training split, whatever `limit` leaves of it.
        source_vocabulary_size: See there, as for
        target_vocabulary_size: the other side.
        max_length: Tokens of a text at most. Longer pairs are left out of the training split; the others' ids are cut,
            a cut target has no `END`.
        limit: Training pairs at most.
        quick: Whether a few pairs of the two other splits will do (a dry run).

    Raises:
        ValueError: If there are no such pairs, they cannot be read or fetched, a line of a file is none, or there are
            too few or too many.
    """
    checks.one_of("kind", kind, tuple(tokenizers.KINDS))
    max_length = checks.positive_int("max_length", max_length)
    if limit is not None:
        checks.positive_int("limit", limit)
    shown, parts = _parts(name)
    sizes = [len(part) for part in parts]
    if not all(sizes):
        told = ", ".join(f"{size} {part}" for part, size in zip(PARTS, sizes, strict=True))
        raise BadInput(f"--data {name}: too few pairs, {told}. Each split needs some: give a hundred pairs or more.")
    if quick:
        parts[1:] = [part[:QUICK_PAIRS] for part in parts[1:]]
    vocabulary_sizes = (source_vocabulary_size, target_vocabulary_size)
    trained = [_trained(name, kind, side, parts[0], size) for side, size in zip(SIDES, vocabulary_sizes, strict=True)]
    encoded = [
        [_tokenized(tokenizer, [pair[place] for pair in part], max_length) for place, tokenizer in enumerate(trained)]
        for part in parts
    ]
    too_long = [np.any([lengths > max_length for _, lengths in sides], axis=0) for sides in encoded]
    kept = [np.flatnonzero(~too_long[0])[:limit], *(np.arange(len(part)) for part in parts[1:])]
    if not len(kept[0]):
        raise BadInput(
            f"--data {name}: each of the {sizes[0]} training pairs has a side of more than {max_length} tokens, which "
            "is the --max-length; raise it."
        )
    longest = np.max(
        [[lengths[rows].max() for _, lengths in sides] for sides, rows in zip(encoded, kept, strict=True)], 0
    )
    widths = np.minimum(longest, max_length)
    splits = [_split_of(*whole, widths) for whole in zip(parts, encoded, kept, strict=True)]
    cut = {part: int(rows.sum()) for part, rows in zip(PARTS[1:], too_long[1:], strict=True)}
    return Pairs(shown, *trained, *splits, int(too_long[0].sum()), cut, _fingerprint(trained, splits))


def to_ids(tokens: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Returns a model's ids (B, N) int32 of a tokenizer's (B, N): `SPECIALS` more, and `PADDING` behind `lengths` (B,).

    This, `with_ends` and `to_tokens` work inside a graph.
    """
    within = tf.sequence_mask(lengths, tf.shape(tokens)[1])
    return tf.where(within, tf.cast(tokens, tf.int32) + SPECIALS, PADDING)


def with_ends(ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Returns ids (B, N + 2) int32: `BEGIN`, the first `lengths` (B,) of each row, `END`, and `PADDING`.

    A row whose length is more than N goes on beyond what is there: it has no `END`.
    """
    rows, width = tf.unstack(tf.shape(ids))
    begins = tf.fill((rows, 1), BEGIN)
    ends = tf.one_hot(lengths, width + 1, on_value=END, off_value=PADDING, dtype=tf.int32)
    return tf.concat([begins, tf.pad(ids, [[0, 0], [0, 1]]) + ends], axis=1)


def to_tokens(ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (tokens (B, N), lengths (B,)), int32, of ids (B, N): what is in front of the first that is no token's."""
    is_token = tf.cast(tf.greater_equal(ids, SPECIALS), tf.int32)
    lengths = tf.reduce_sum(tf.math.cumprod(is_token, axis=1), axis=1)
    return tf.maximum(tf.cast(ids, tf.int32) - SPECIALS, 0), lengths


def normalised(text: str) -> str:
    """Returns a text by which it is told apart from others: without case, breadth of letters and amount of space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _parts(name):
    """Returns the name to show, and the pairs of the three splits."""
    if name == "dates":
        return name, [_arranged(pairs) for pairs in dates.splits().values()]
    if name and os.path.exists(name):
        return name, _hold_out(_arranged(_read(Path(name))), 2)
    if name.startswith((".", "/", "~")) or Path(name).suffix.lower() in (".tsv", ".txt", ".csv"):
        raise BadInput(f"--data {name}: there is no such file{_near(name)}. It may be {UNDERSTOOD}.")
    return _tfds(name)


def _near(path):
    """Returns the end of a sentence that says which files there are, with almost this name."""
    path, there = Path(path), []
    with contextlib.suppress(OSError):
        there = os.listdir(path.parent)
    near = difflib.get_close_matches(path.name, there, 3)
    return f"; there is {', '.join(sorted(near))}" if near else ""


def _arranged(pairs: Iterable[Pair]) -> list[Pair]:
    """Returns each pair once, in the order of a hash of its source; of several spellings the first one in order."""
    found = {}
    for source, target in sorted(pairs):
        found.setdefault((normalised(source), normalised(target)), (source, target))
    return [found[key] for key in sorted(found, key=lambda key: (_hash(key[0]), key[1]))]


def _hash(text):
    return hashlib.sha256(text.encode()).digest()


def _hold_out(pairs: list[Pair], held_out: int) -> list[list[Pair]]:
    """Splits pairs: those for training, and `held_out` parts of `HELD_OUT` each; see `load`."""
    parts = [[] for _ in range(held_out + 1)]
    for pair, group in zip(pairs, _groups(pairs), strict=True):
        place = int(int.from_bytes(_hash(group)[:8]) / 2**64 / HELD_OUT)
        parts[place + 1 if place < held_out else 0].append(pair)
    return parts


def _groups(pairs):
    """Returns what each pair is split by: the first source, in order, of those that are linked with it by targets."""
    keys = [(normalised(source), normalised(target)) for source, target in pairs]
    linked = {source: source for source, _ in keys}

    def first(source):
        while linked[source] != source:
            linked[source] = source = linked[linked[source]]
        return source

    source_of = {}
    for source, target in keys:
        smaller, larger = sorted((first(source), first(source_of.setdefault(target, source))))
        linked[larger] = smaller
    groups = [first(source) for source, _ in keys]
    sizes = Counter(groups)
    most = HELD_OUT * len(pairs)
    return [group if sizes[group] <= most else source for group, (source, _) in zip(groups, keys, strict=True)]


def _trained(name, kind, side, pairs, vocabulary_size):
    """Returns the tokenizer of a side, trained on its texts."""
    texts = [pair[SIDES.index(side)] for pair in pairs]
    try:
        return tokenizers.train(kind, "\n".join(texts), vocabulary_size=vocabulary_size)
    except BadInput as error:
        raise BadInput(f"--data {name}, {side}s: {error}") from None


def _tokenized(tokenizer: Tokenizer, texts: Sequence[str], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokenizer's ids (N, `most`) int32 of texts, longer ones cut, and the lengths (N,) that they had."""
    tokens, lengths = np.zeros((len(texts), most), np.int32), np.zeros(len(texts), np.int32)
    encoded = [text.encode() for text in texts]
    with tf.device("CPU:0"):
        for rows in _of_like_length([len(text) for text in encoded]):
            ids, lengths[rows] = tokenizer.tokenize(tf.constant([encoded[row] for row in rows]))
            tokens[rows, : ids.shape[1]] = ids[:, :most]
    return tokens, lengths


def _split_of(pairs, sides, rows, widths) -> PairSplit:
    """Returns some rows of a split; `sides` are what `_tokenized` gave of each, `widths` the tokens there may be."""
    (sources, source_lengths), (targets, target_lengths) = (
        (tokens[rows, :width], lengths[rows]) for (tokens, lengths), width in zip(sides, widths, strict=True)
    )
    with tf.device("CPU:0"):
        source_ids = to_ids(sources, source_lengths)
        target_ids = with_ends(to_ids(targets, target_lengths), target_lengths)
    return PairSplit([pairs[row] for row in rows], source_ids.numpy(), target_ids.numpy())


def _of_like_length(sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields the places of texts, the longest first, as many at a time as `TOKENIZED_BYTES` have room for."""
    order, begin = np.argsort(sizes)[::-1], 0
    while begin < len(order):
        rows = order[begin : begin + max(1, TOKENIZED_BYTES // sizes[order[begin]])]
        yield rows
        begin += len(rows)


def _fingerprint(trained, splits):
    digest = hashlib.sha256()
    for tokenizer in trained:
        digest.update(repr((tokenizer.kind, tokenizer.vocabulary)).encode())
    for split in splits:
        for ids in (split.sources, split.targets):
            digest.update(repr(ids.shape).encode())
            digest.update(ids.tobytes())
    return digest.hexdigest()


def _keys(split, place):
    return {normalised(pair[place]) for pair in split.texts}


def _unknown_share(tokenizer, ids):
    if tokenizer.unknown is None:
        return 0.0
    return float(np.sum(ids == tokenizer.unknown + SPECIALS) / np.sum(ids >= SPECIALS))


def _read(path: Path) -> list[Pair]:
    """Returns the pairs of a file; refuses the file where a line is none."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a device or a pipe"
        raise BadInput(f"--data {path}: it is {what}, and a file of pairs is needed. It may be {UNDERSTOOD}.")
    try:
        if path.stat().st_size > MOST_BYTES:
            _refuse_size(path)
        contents = path.read_bytes()
    except OSError as error:
        raise BadInput(f"--data {path}: it cannot be read ({error.strerror}); make it readable.") from None
    if not contents:
        raise BadInput(f"--data {path}: it is empty. It may be {UNDERSTOOD}.")
    pairs, without_tab, without_side = [], [], []
    for number, line in enumerate(contents.removeprefix(BYTE_ORDER_MARK).split(b"\n"), 1):
        line = _decoded(line, f"--data {path}, line {number}").rstrip("\r")
        pair = tuple(cell.strip() for cell in line.split("\t")[:2])
        if number == 1 and tuple(map(normalised, pair)) == SIDES:
            continue
        if not line.strip(" "):  # An empty line, as many a file ends with.
            continue
        if len(pair) < 2:
            without_tab.append(number)
        elif not all(pair):
            without_side.append(number)
        pairs.append(pair)
    if without_tab:
        raise BadInput(
            f"--data {path}: {_lines(without_tab)} one column. Two are "
            "needed: the source, a tab (not a comma or spaces) and the target."
        )
    if without_side:
        raise BadInput(
            f"--data {path}: {_lines(without_side)} an empty side. Write "
            "both the source and the target there, or take the line out."
        )
    return pairs


def _decoded(text: bytes, where: str) -> str:
    """Returns a text that should be UTF-8 and have no NUL; refuses others."""
    nul = text.find(b"\0")
    if nul >= 0:
        raise BadInput(
            f"{where}: byte {nul + 1} is a NUL, so this is no text: a spreadsheet, an archive or UTF-16? Save it as "
            "text in UTF-8, with tabs."
        )
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{where}: byte {error.start + 1} is not UTF-8 (0x{text[error.start]:02x}). Convert it first, as by: "
            "iconv -f LATIN1 -t UTF-8 old.tsv > new.tsv"
        ) from None


def _lines(numbers):
    """Returns the beginning of a sentence that says what these lines have."""
    if len(numbers) == 1:
        return f"line {numbers[0]} has"
    more = len(numbers) - NUMBERS_SHOWN
    return f"lines {', '.join(map(str, numbers[:NUMBERS_SHOWN]))}{f' and {more:,} more' if more > 0 else ''} have"


def _refuse_size(where):
    raise BadInput(
        f"--data {where}: it has more than {MOST_BYTES:,} bytes, too many to hold in memory with their ids. Take "
        "a part of it as a file, as by: shuf -n 1000000"
    )


def _tfds(name):
    builder = tfds_sets.open_set(name, embedded="dates", understood=UNDERSTOOD)
    sides = _sides(builder, name)
    tfds_sets.prepare(builder, name, embedded="dates")  # Not before: what is of no use here may be very large.
    splits = builder.info.splits
    if "train" not in splits:
        raise BadInput(f"--data {name}: it has no training split, only {', '.join(splits)}.")

    def pairs(part):
        found, size = [], 0
        for number, example in enumerate(tfds_sets.examples(builder, part).as_numpy_iterator()):
            size += sum(len(example[side]) for side in sides)
            if size > MOST_BYTES:
                _refuse_size(f"{name}, split {part}")
            where = f"--data {name}, split {part}, example {number}"
            pair = tuple(_decoded(example[side], where).strip() for side in sides)
            if all(pair):  # A set is what it is; nobody here can mend an example.
                found.append(pair)
        return _arranged(found)

    validation = next((part for part in ("validation", "val", "dev") if part in splits), None)
    test = "test" if "test" in splits else validation
    held_out = [pairs(part) for part in dict.fromkeys((validation, test)) if part]
    return builder.info.full_name, [*_hold_out(pairs("train"), 2 - len(held_out)), *held_out]


def _sides(builder, name):
    """Returns the names of the features that are source and target."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    supervised = builder.info.supervised_keys
    texts = [key for key, feature in getattr(features, "items", dict)() if isinstance(feature, tfds.features.Text)]
    if supervised and len(supervised) == 2 and all(key in texts for key in supervised):
        return supervised
    if isinstance(features, tfds.features.Translation) and len(texts) == 2:
        return tuple(texts)
    raise BadInput(
        f"--data {name}: it has no pairs of texts to learn from (its texts are {', '.join(sorted(texts)) or 'none'}); "
        "translations into one language, or a text to be made from another, are needed."
    )
