"""Parts of words as tokens: byte pairs as GPT-2 has them, WordPiece as BERT has it, and their published files.

Vocabularies are trained by the library `tokenizers`. Texts become ids by operations of TensorFlow alone: a server needs
nothing else.

Shape letters: B texts, W words, N what all words are made of, one after the other.
"""

import functools
import json
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from zoo import checks
from zoo.checks import BadInput
from zoo.tokenizers import NEVER_IN_UTF8, Tokenizer, contents_of, padded, refuse_monotony, shortened, valid

DEFAULT_SIZE = 8000  # Of a vocabulary, unless another is asked for or the text gives fewer.
LEAST_COUNT = 2  # How often two neighbours are in the training text before they become one token.
END_OF_TEXT = "<|endoftext|>"  # GPT-2's sign between two documents.
PADDING, UNKNOWN, FIRST, LAST, MASKED = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # BERT's.
CONTINUES = "##"  # Before a token that goes on with a word.
MOST_CHARACTERS = 100  # Of a word that BERT looks up; a longer one is unknown.

# Unicode's white space, as RE2 has it in a class and in UTF-8 for Python. RE2's \s is ASCII's.
WHITE = r"\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
WHITE_BYTES = rb"[\t-\r ]|\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80"
WORD = rf"('s|'t|'re|'ve|'m|'ll|'d| ?\pL+| ?\pN+| ?[^{WHITE}\pL\pN]+|[{WHITE}]+)"
LAST_WHITE = rf"([{WHITE}])([{WHITE}][^{WHITE}])"  # In front of it a run of white space is cut.

# The letters that stand for the 256 bytes in GPT-2's files: a byte's own where it can be seen, else the next free one.
_SEEN = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_FREE = iter(range(0x100, 0x200))
LETTERS = tuple(chr(byte if byte in _SEEN else next(_FREE)) for byte in range(256))
BYTES = {letter: byte for byte, letter in enumerate(LETTERS)}
NO_PAIR = -1
NEVER = np.iinfo(np.int64).max  # The rank of a pair that is not merged.

CHINESE = (  # As BERT has it: each is a word.
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F)),
    *((0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F)),
)
OF_WORD, BETWEEN, ALONE = range(3)  # What a character is: a part of a word, white space, or a word.
KEPT, REMOVED, SPACE = range(-1, 2)  # What becomes of one, unless it is replaced.
CODES = sys.maxunicode + 1


class Subwords(Tokenizer):
    """Byte pairs: a text is cut into words, and of each word's bytes the neighbours that were learned first are merged.

    The 256 bytes have ids of their own, so that nothing is unknown. What is a word, and every id, is as GPT-2 has it,
    with letters and digits as Unicode 15 knows them. A token that no merge gives, such as "<|endoftext|>", is in no
    text: where its spelling occurs, it is text like any other.

    Args:
        vocabulary: The token of each id, as GPT-2's `vocab.json` spells them: a letter for each byte.
        merges: Pairs of tokens, the first ones first, as the lines of its `merges.txt`: "h e".

    Reference:
        Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units", 2016,
        https://arxiv.org/abs/1508.07909; Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    """

    kind = "subwords"
    unknown = None
    # Wherever else a text is cut, white space may be counted to another word.
    _begins = re.compile(rb"[\t-\r ](?!" + WHITE_BYTES + rb"|\Z)")

    def __init__(self, vocabulary: Sequence[str], merges: Sequence[str]):
        ids = {token: place for place, token in enumerate(vocabulary)}
        if len(ids) < len(vocabulary):
            raise BadInput(f"vocabulary={shortened(vocabulary)}: each token must be there once.")
        if lacking := [letter for letter in LETTERS if letter not in ids]:
            raise BadInput(
                f"vocabulary={shortened(vocabulary)}: it must have all 256 bytes, {lacking[0]!r} is missing."
            )
        super().__init__([_bytes(token) for token in vocabulary])
        self._spelled, self._merges = tuple(vocabulary), tuple(merges)
        if len(set(merges)) < len(merges):
            raise BadInput(f"merges={shortened(merges)}: each pair must be there once.")
        pairs = np.array([_merge(place, merge, ids) for place, merge in enumerate(merges)], np.int64).reshape(-1, 3)
        ranks = np.arange(len(pairs))
        # One more than there are: a table must not be empty.
        keys = np.append(pairs[:, 0] * len(ids) + pairs[:, 1], NO_PAIR)
        ordered = tf.lookup.KeyValueTensorInitializer(keys, np.append(ranks, NEVER))
        self._ranks = tf.lookup.StaticHashTable(ordered, default_value=NEVER)
        self.tracked = (self._ranks,)
        self._made = np.append(pairs[:, 2], 0).astype(np.int32)
        used = np.full(len(ids), NEVER)  # By the first of the merges that take a token.
        np.minimum.at(used, pairs[:, :2], ranks[:, np.newaxis])
        self._one_by_one = np.append(used[pairs[:, 2]] < ranks, False)
        self._of_bytes = np.array([ids[letter] for letter in LETTERS], np.int32)

    @classmethod
    def train(cls, text: str | bytes, vocabulary_size: int | None) -> "Subwords":
        size = DEFAULT_SIZE if vocabulary_size is None else checks.vocabulary_size(vocabulary_size)
        if size <= len(LETTERS):
            raise BadInput(f"vocabulary_size={size}: 256 are for the single bytes, so at least 257 are needed.")
        values = set(contents_of(text, utf8=True))
        if len(values) < 2:
            refuse_monotony(*(bytes([value]) for value in values))
        library = _library()
        trained = library.Tokenizer(library.models.BPE())
        trained.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = library.trainers.BpeTrainer(
            vocab_size=size, min_frequency=LEAST_COUNT, initial_alphabet=sorted(LETTERS), show_progress=False
        )
        trained.train_from_iterator((piece.decode() for piece in cls.pieces(text)), trainer)
        model = json.loads(trained.to_str())["model"]
        return cls(_in_order(model["vocab"]), [" ".join(pair) for pair in model["merges"]])

    @property
    def empty_prompt(self) -> int:
        """The id that stands before an empty prompt: the end of a text where the vocabulary has it, else a new line."""
        return self._spelled.index(END_OF_TEXT) if END_OF_TEXT in self._spelled else super().empty_prompt

    def tokenize(self, texts):
        return padded(self._ids(valid(texts)))

    def split(self, texts):
        ids = self._ids(texts)
        return ids.with_flat_values(tf.gather(tf.constant(self.vocabulary), ids.flat_values))

    def detokenize(self, tokens, lengths):
        joined = super().detokenize(tokens, lengths)
        return tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")

    def to_dict(self) -> dict:
        return super().to_dict() | {"vocabulary": list(self._spelled), "merges": list(self._merges)}

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        ids = {token: place for place, token in enumerate(self._spelled)}
        end = END_OF_TEXT if END_OF_TEXT in ids else None  # Without this they would add one, with an id of its own.
        config = {"tokenizer_class": "GPT2Tokenizer", "bos_token": end, "eos_token": end, "unk_token": end}
        _write(folder, "vocab.json", json.dumps(ids, ensure_ascii=False))
        _write(folder, "merges.txt", "\n".join(["#version: 0.2", *self._merges, ""]))
        _write(folder, "tokenizer_config.json", json.dumps(config, indent=2))

    def _ids(self, texts):
        """Ragged ids (B, None) of texts (B,): each word that occurs is encoded once."""
        words = _words(texts)
        distinct, places = tf.unique(words.flat_values)
        ids = tf.gather(self._merged(distinct), places)
        return tf.RaggedTensor.from_row_splits(ids, words.row_splits, validate=False).merge_dims(1, 2)

    def _merged(self, words):
        """Ragged ids (W, None) of words (W,), none of them empty."""
        word = tf.repeat(tf.range(tf.size(words)), tf.strings.length(words))
        values = tf.io.decode_raw(tf.strings.reduce_join(words), tf.uint8)
        ids = tf.gather(self._of_bytes, tf.cast(values, tf.int32))
        state = ids, tf.range(tf.size(ids)), ids, word
        shapes = (tf.TensorShape([None]),) * len(state)
        found, *_ = tf.while_loop(lambda *state: tf.size(state[-1]) > 0, self._merge_lowest, state, shapes)
        lengths = tf.math.segment_sum(tf.cast(found >= 0, tf.int64), word)
        return tf.RaggedTensor.from_row_lengths(tf.boolean_mask(found, found >= 0), lengths, validate=False)

    def _merge_lowest(self, found, places, ids, word):
        """Merges, in each word, the pair of lowest rank.

        Args:
            found: The ids so far (N,), -1 where one is merged into that before it.
            places, ids, word: Where in `found` the ids are that may still be merged, these ids, and their words.
        """
        index = tf.range(tf.size(ids))
        pairs = tf.cast(ids, tf.int64) * self.vocabulary_size + tf.cast(tf.roll(ids, -1, 0), tf.int64)
        in_one_word = tf.concat([word[1:] == word[:-1], [False]], 0)
        ranks = self._ranks.lookup(tf.where(in_one_word, pairs, NO_PAIR))
        lowest = tf.gather(tf.math.segment_min(ranks, word), word)
        going = lowest < NEVER
        merged = going & (ranks == lowest)
        made = tf.where(merged, ranks, 0)
        # All in the word at once, unless they make what an earlier merge takes, which then comes before the next.
        first = tf.gather(tf.math.segment_min(tf.where(merged, index, tf.size(ids)), word), word)
        merged &= ~tf.gather(self._one_by_one, made) | (index == first)
        # Of pairs that overlap, as in "aaa", every second from the left.
        begins = merged & ~_shifted(merged)
        begun = tf.gather(tf.concat([[0], tf.boolean_mask(index, begins)], 0), tf.cumsum(tf.cast(begins, tf.int32)))
        merged &= (index - begun) % 2 == 0
        gone = _shifted(merged)
        ids = tf.where(merged, tf.gather(self._made, made), ids)
        found = tf.tensor_scatter_nd_update(found, places[:, tf.newaxis], tf.where(gone, -1, ids))
        stays = going & ~gone
        return found, *(tf.boolean_mask(part, stays) for part in (places, ids, word))


class WordPieces(Tokenizer):
    """WordPiece: each word is the longest token it begins with, then the longest that goes on with it, and so forth.

    What is a word, and every id, is as BERT has it: punctuation marks and Chinese characters are words, and control
    characters are dropped; the Unicode that is asked about them is Python's. A word that cannot be made of tokens, or
    has more than 100 characters, is unknown. White space is lost, and with `lowercase` capitals and accents are, so a
    text does not come back as it was: `detokenize` puts a space before each token that begins a word.

    Args:
        vocabulary: The token of each id, "[UNK]" among them; those that go on with a word begin with "##".
        lowercase: Whether capitals become small letters and accents are taken off.

    Attributes:
        special: The ids of "[PAD]", "[UNK]", "[CLS]", "[SEP]" and "[MASK]", those that the vocabulary has. `tokenize`
            gives none of them, except for what is unknown.

    Reference:
        Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", 2019,
        https://arxiv.org/abs/1810.04805.
    """

    kind = "wordpieces"
    _begins = re.compile(rb"[\t\n\r ](?![\t\n\r ]|\Z)")

    def __init__(self, vocabulary: Sequence[str], lowercase: bool = True):
        ids = {token: place for place, token in enumerate(vocabulary)}
        if UNKNOWN not in ids or not all(vocabulary):
            raise BadInput(f"vocabulary={shortened(vocabulary)}: {UNKNOWN!r} must be one of it, and none may be empty.")
        super().__init__([token.encode() for token in vocabulary])
        self._spelled, self.lowercase = tuple(vocabulary), bool(lowercase)
        self.special = {token: ids[token] for token in SPECIAL if token in ids}
        self.unknown = ids[UNKNOWN]
        # A tree over the tokens' characters: node 0 begins words, node 1 goes on with them.
        nodes: dict[tuple[int, str], int] = {}
        ends = {}
        for token, place in ids.items():
            node = int(_continues(token))
            for character in token[len(CONTINUES) :] if node else token:
                node = nodes.setdefault((node, character), len(nodes) + 2)
            ends[node] = place
        keys = np.array([node * CODES + ord(character) for node, character in nodes], np.int64)
        leads_to = tf.lookup.KeyValueTensorInitializer(keys, np.array([*nodes.values()], np.int64))
        self._tree = tf.lookup.StaticHashTable(leads_to, default_value=-1)
        self._ends = np.full(len(nodes) + 2, -1, np.int32)
        self._ends[[*ends]] = [*ends.values()]
        self.tracked = (self._tree,)

    @classmethod
    def train(cls, text: str | bytes, vocabulary_size: int | None, lowercase: bool = True) -> "WordPieces":
        size = DEFAULT_SIZE if vocabulary_size is None else checks.vocabulary_size(vocabulary_size)
        if size < len(SPECIAL) + 2:
            raise BadInput(
                f"vocabulary_size={size}: {len(SPECIAL)} are for {', '.join(SPECIAL)}, so at least {len(SPECIAL) + 2} "
                "are needed."
            )
        alone = cls([*SPECIAL], lowercase)
        counts: Counter[tuple[str, bool]] = Counter()
        for piece in cls.pieces(text):
            counts.update(alone._count(piece))
        characters: Counter[str] = Counter()
        for (character, _), count in counts.items():
            characters[character] += count
        if len(characters) < 2:
            refuse_monotony(*(character.encode() for character in characters))
        letters: list[str] = []
        for character in sorted(characters, key=lambda character: (-characters[character], character)):
            forms = [character, *[CONTINUES + character] * ((character, True) in counts)]
            if len(SPECIAL) + len(letters) + len(forms) > size:
                break
            letters += forms
        library = _library()
        trained = library.Tokenizer(library.models.WordPiece(unk_token=UNKNOWN))
        trained.normalizer = library.normalizers.BertNormalizer(lowercase=lowercase)
        trained.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        trainer = library.trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=LEAST_COUNT,
            # Left to itself it orders single characters by chance, and then each run gives other tokens.
            special_tokens=[*SPECIAL, *letters],
            limit_alphabet=0,
            show_progress=False,
        )
        trained.train_from_iterator((piece.decode() for piece in cls.pieces(text)), trainer)
        return cls(_in_order(trained.get_vocab()), lowercase)

    @classmethod
    def from_file(cls, path: str | os.PathLike, lowercase: bool = True) -> "WordPieces":
        """Reads BERT's `vocab.txt`, a token in each line; raises `BadInput` that names the file if it is none."""
        tokens = [line.removesuffix("\r") for line in _read(path).removesuffix("\n").split("\n")]
        try:
            return cls(tokens, lowercase)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from None

    @property
    def empty_prompt(self) -> int:
        """The id that stands before an empty prompt: that of "[CLS]", where the vocabulary has it."""
        return self.special.get(FIRST, self.special[UNKNOWN])

    def tokenize(self, texts):
        return padded(self._found(valid(texts))[0])

    def split(self, texts):
        """Returns what the tokens of `texts` (B,) are made of: joined, the whole of each text that has a token."""
        ids, begins, codes = self._found(texts)
        # A character belongs to the newest token that has begun; those before the first one belong to that.
        begun = tf.cumsum(tf.math.unsorted_segment_sum(tf.ones_like(begins), begins, tf.size(codes.flat_values))) - 1
        rows = codes.value_rowids()
        token = tf.maximum(begun, tf.gather(ids.row_starts(), rows))
        some = tf.gather(ids.row_lengths(), rows) > 0
        taken = tf.RaggedTensor.from_value_rowids(
            tf.boolean_mask(codes.flat_values, some), tf.boolean_mask(token, some), tf.size(ids.flat_values, tf.int64)
        )
        return ids.with_flat_values(tf.strings.unicode_encode(taken, "UTF-8"))

    def detokenize(self, tokens, lengths):
        shown = [token[len(CONTINUES) :] if _continues(token) else " " + token for token in self._spelled]
        within = tf.sequence_mask(lengths, tf.shape(tokens)[1])
        joined = tf.strings.reduce_join(tf.where(within, tf.gather(tf.constant(shown), tokens), ""), axis=1)
        return tf.strings.regex_replace(joined, "^ ", "")

    def to_dict(self) -> dict:
        return super().to_dict() | {"vocabulary": list(self._spelled), "lowercase": self.lowercase}

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": self.lowercase}
        _write(folder, "vocab.txt", "\n".join([*self._spelled, ""]))
        _write(folder, "tokenizer_config.json", json.dumps(config, indent=2))

    def _count(self, piece):
        """How often each (character, whether it goes on with a word) is in a text, as the vocabulary would see it."""
        with tf.device("CPU:0"):
            characters, _, _, begins = (part.numpy() for part in self._in_words(_codes(tf.constant([piece]))))
        keys, counts = np.unique(characters * 2 + ~begins, return_counts=True)
        return {
            (chr(key // 2), bool(key % 2)): count for key, count in zip(keys.tolist(), counts.tolist(), strict=True)
        }

    def _in_words(self, codes):
        """The words' characters (N,), the places in `codes` they come from, their texts, and whether a word begins."""
        characters, sources = _normalized(codes.flat_values, self.lowercase)
        texts = tf.gather(codes.value_rowids(), sources)
        kinds = _in_runs(characters, *_kinds())
        before = tf.concat([[BETWEEN], kinds[:-1]], 0)
        other_text = tf.concat([[True], texts[1:] != texts[:-1]], 0)[: tf.size(texts)]
        begins = other_text | (kinds == ALONE) | (before[: tf.size(kinds)] != OF_WORD)
        return [tf.boolean_mask(part, kinds != BETWEEN) for part in (characters, sources, texts, begins)]

    def _found(self, texts):
        """Ragged ids (B, None) of texts (B,), where in the ragged code points (B, None) each begins, and these."""
        codes = _codes(texts)
        characters, sources, rows, begins = self._in_words(codes)
        word = tf.cumsum(tf.cast(begins, tf.int32)) - 1
        starts = tf.cast(tf.where(begins)[:, 0], tf.int32)
        lengths = tf.concat([starts[1:], [tf.size(characters)]], 0)[: tf.size(starts)] - starts
        ends = tf.gather(starts + lengths, word)
        ids, sizes = self._longest(characters, begins, ends)
        taken = _walked(tf.boolean_mask(starts, lengths <= MOST_CHARACTERS), sizes, ends)
        # A word is unknown as a whole: where it is too long or the walk came to a place where no token begins.
        stuck = tf.math.segment_max(tf.cast(taken & (sizes == 0), tf.int32), word) > 0
        unknown = tf.gather(stuck | (lengths > MOST_CHARACTERS), word)
        places = tf.where(tf.where(unknown, begins, taken))[:, 0]
        ids = tf.gather(tf.where(unknown, self.unknown, ids), places)
        ragged = tf.RaggedTensor.from_value_rowids(ids, tf.gather(rows, places), codes.nrows(), validate=False)
        return ragged, tf.gather(sources, places), codes

    def _longest(self, characters, begins, ends):
        """The longest token (N,) that begins at each character, as if one did, and its length (N,), 0 for none."""
        places = tf.range(tf.size(characters))
        nodes = tf.where(begins, tf.constant(0, tf.int64), tf.constant(1, tf.int64))
        none = tf.zeros_like(places)

        def go_deeper(depth, places, nodes, ids, sizes):
            codes = tf.cast(tf.gather(characters, places + depth), tf.int64)
            nodes = self._tree.lookup(nodes * CODES + codes)
            found = tf.gather(self._ends, tf.maximum(nodes, 0))
            here = tf.boolean_mask(places, (nodes >= 0) & (found >= 0))[:, tf.newaxis]
            ids = tf.tensor_scatter_nd_update(ids, here, tf.boolean_mask(found, (nodes >= 0) & (found >= 0)))
            sizes = tf.tensor_scatter_nd_update(sizes, here, tf.repeat(depth + 1, tf.shape(here)[0]))
            goes_on = (nodes >= 0) & (places + depth + 1 < tf.gather(ends, places))
            return depth + 1, tf.boolean_mask(places, goes_on), tf.boolean_mask(nodes, goes_on), ids, sizes

        state = 0, places, nodes, none, none
        shapes = tf.TensorShape([]), *[tf.TensorShape([None])] * 4
        *_, ids, sizes = tf.while_loop(lambda _, places, *rest: tf.size(places) > 0, go_deeper, state, shapes)
        return ids, sizes


def read(folder: str | os.PathLike) -> Subwords | WordPieces | None:
    """See `zoo.tokenizers.from_pretrained`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"folder={str(folder)!r}: there is no such folder.")
    for name, reader in READERS.items():
        if (folder / name).exists():
            try:
                return reader(folder)
            except BadInput as error:
                told = str(error)
                raise BadInput(told if told.startswith(str(folder)) else f"{folder / name}: {told}") from None
            except (AttributeError, KeyError, TypeError) as error:
                raise BadInput(f"{folder / name}: it holds no tokenizer ({error!r}); fetch it anew.") from None
    return None


def _from_json(folder):
    contents = _read_json(folder / "tokenizer.json")
    model = contents.get("model") or {}
    ids = model.get("vocab")
    kind = model.get("type", "BPE" if "merges" in model else "WordPiece")  # Old files do not say.
    if kind not in ("BPE", "WordPiece") or not isinstance(ids, dict):
        raise BadInput(f"its model is {kind!r}; it must be 'BPE' (GPT-2's) or 'WordPiece' (BERT's) with a vocabulary.")
    ids = ids | {token["content"]: token["id"] for token in contents.get("added_tokens") or ()}
    normalizer, cut = contents.get("normalizer") or {}, contents.get("pre_tokenizer") or {}
    if kind == "BPE":
        _check(
            ("normalizer", normalizer.get("type"), None),
            ("pre_tokenizer", cut.get("type"), "ByteLevel"),
            ("add_prefix_space", cut.get("add_prefix_space"), False),
            ("use_regex", cut.get("use_regex", True), True),
            *((name, model.get(name) or None, None) for name in ("dropout", "ignore_merges", "byte_fallback")),
            *((name, model.get(name) or "", "") for name in ("continuing_subword_prefix", "end_of_word_suffix")),
        )
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", ())]
        return Subwords(_in_order(ids), merges)
    lowercase = bool(normalizer.get("lowercase"))
    accents = normalizer.get("strip_accents")
    _check(
        ("normalizer", normalizer.get("type"), "BertNormalizer"),
        ("clean_text", normalizer.get("clean_text"), True),
        ("handle_chinese_chars", normalizer.get("handle_chinese_chars"), True),
        ("strip_accents", lowercase if accents is None else accents, lowercase),
        ("pre_tokenizer", cut.get("type"), "BertPreTokenizer"),
        ("unk_token", model.get("unk_token"), UNKNOWN),
        ("continuing_subword_prefix", model.get("continuing_subword_prefix"), CONTINUES),
        ("max_input_chars_per_word", model.get("max_input_chars_per_word"), MOST_CHARACTERS),
    )
    return WordPieces(_in_order(ids), lowercase)


def _from_merges(folder):
    ids, config = _read_json(folder / "vocab.json"), _config(folder)
    _check(("add_prefix_space of tokenizer_config.json", config.get("add_prefix_space", False), False))
    lines = _read(folder / "merges.txt").replace("\r", "").split("\n")
    return Subwords(_in_order(ids), [line for line in lines[lines[0].startswith("#version") :] if line])


def _from_lines(folder):
    config = _config(folder)
    lowercase, accents = config.get("do_lower_case", True), config.get("strip_accents")
    _check(
        ("strip_accents of tokenizer_config.json", lowercase if accents is None else accents, lowercase),
        ("tokenize_chinese_chars of tokenizer_config.json", config.get("tokenize_chinese_chars", True), True),
    )
    return WordPieces.from_file(folder / "vocab.txt", lowercase)


READERS = {  # The first file says all that there is to say.
    "tokenizer.json": _from_json,
    "vocab.json": _from_merges,
    "merges.txt": _from_merges,
    "vocab.txt": _from_lines,
}


def _check(*facts):
    for name, found, needed in facts:
        if found != needed:
            raise BadInput(f"its {name} is {found!r}; only {needed!r} is known here, as GPT-2 and BERT have it.")


def _read(path):
    try:
        return Path(path).read_bytes().decode()
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file; copy it from where the others come from.") from None
    except OSError as error:
        raise BadInput(f"{path}: it cannot be read ({error.strerror}); make it readable.") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: the byte at offset {error.start} is not UTF-8; fetch the file anew.") from None


def _config(folder):
    path = folder / "tokenizer_config.json"
    return _read_json(path) if path.exists() else {}


def _read_json(path):
    try:
        contents = json.loads(_read(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: it is not JSON ({error}); fetch the file anew.") from None
    if not isinstance(contents, dict):
        raise BadInput(f"{path}: it must be a JSON object.")
    return contents


def _write(folder, name, contents):
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / name).write_bytes(contents.encode())


def _in_order(ids: Mapping[str, int]) -> list[str]:
    """The tokens, ordered by their ids; refuses ids that are not 0, 1, 2 and so on."""
    tokens = {place: token for token, place in ids.items()}
    missing = next((place for place in range(len(ids)) if place not in tokens), None)
    if missing is not None:
        raise BadInput(f"of its {len(ids)} tokens none has the id {missing}; needed is one for each from 0 on.")
    return [tokens[place] for place in range(len(ids))]


def _library():
    try:
        import tokenizers
    except ImportError:
        raise BadInput("training a vocabulary needs the package tokenizers: pip install tokenizers.") from None
    return tokenizers


def _bytes(token):
    """What a token of GPT-2's files stands for: the bytes of its letters, or itself if it is not made of them."""
    if all(letter in BYTES for letter in token):
        return bytes(BYTES[letter] for letter in token)
    return token.encode()


def _merge(place, merge, ids):
    """The ids of both tokens of a pair, and of what they make."""
    tokens = str(merge).split(" ")
    made = [*tokens, "".join(tokens)]
    if len(tokens) != 2 or not all(token in ids for token in made):
        raise BadInput(f"merges[{place}]={merge!r}: it must be two tokens and a space; they and both joined have ids.")
    return [ids[token] for token in made]


def _words(texts):
    """Cuts texts (B,) into words as GPT-2's pattern does: of white space before a word, the last one is its own.

    RE2 cannot look ahead, so it is first cut where that pattern looks; and TensorFlow cannot list what a pattern
    matches: a byte that no text has is put behind each, to split there.
    """
    cut = tf.strings.regex_replace(texts, LAST_WHITE, rb"\1" + NEVER_IN_UTF8 + rb"\2")
    words = tf.strings.split(tf.strings.regex_replace(cut, WORD, rb"\1" + NEVER_IN_UTF8), NEVER_IN_UTF8)
    return tf.ragged.boolean_mask(words, tf.ragged.map_flat_values(tf.not_equal, words, ""))


def _shifted(flags):
    return tf.concat([[False], flags[:-1]], 0)


def _continues(token):
    return token.startswith(CONTINUES) and token != CONTINUES


def _codes(texts):
    return tf.strings.unicode_decode(texts, "UTF-8")


def _walked(at, sizes, ends):
    """Whether a token begins (N,), when words begin `at` (W,) and each token is as long as `sizes` (N,) says."""

    def step(at, taken):
        taken = tf.tensor_scatter_nd_update(taken, at[:, tf.newaxis], tf.ones_like(at, tf.bool))
        size = tf.gather(sizes, at)
        return tf.boolean_mask(at + size, (size > 0) & (at + size < tf.gather(ends, at))), taken

    shapes = (tf.TensorShape([None]),) * 2
    return tf.while_loop(lambda at, _: tf.size(at) > 0, step, (at, tf.zeros_like(sizes, tf.bool)), shapes)[1]


def _normalized(codes, lowercase):
    """The characters that code points (N,) become, and the place in `codes` that each comes from."""
    starts, rows, steps, replacements = _cleaned(lowercase)
    run = tf.searchsorted(starts, codes, side="right") - 1
    row = tf.gather(rows, run) + tf.gather(steps, run) * (codes - tf.gather(starts, run))
    kept = tf.pad(codes[:, tf.newaxis], [[0, 0], [0, replacements.shape[1] - 1]], constant_values=-1)
    several = tf.where((row == KEPT)[:, tf.newaxis], kept, tf.gather(replacements, tf.maximum(row, 0)))
    return tf.boolean_mask(several, several >= 0), tf.where(several >= 0)[:, 0]


def _in_runs(codes, starts, values):
    return tf.gather(values, tf.searchsorted(starts, codes, side="right") - 1)


@functools.cache
def _cleaned(lowercase):
    """What becomes of each code point, in runs of them.

    Returns:
        starts: The first code point of each run.
        rows: Its row in `replacements`, or `KEPT`.
        steps: How far the row of the next code point in the run is from its own: 0 or 1.
        replacements: The characters that a code point becomes, padded with -1; the rows of `REMOVED` and `SPACE` first.
    """
    found, rows = [[], [ord(" ")]], []
    for code in range(CODES):
        character = chr(code)
        category = unicodedata.category(character)
        if (category == "Cc" and character in "\t\n\r") or category[0] == "Z":
            rows.append(SPACE)
        elif category in ("Cc", "Cf", "Co") or character == "\ufffd":
            rows.append(REMOVED)
        else:
            small = _plain(character) if lowercase else character
            rows.append(KEPT if small == character else len(found) if small else REMOVED)
            if rows[-1] > SPACE:
                found.append([ord(part) for part in small])
    row = np.array(rows, np.int32)
    step = (row > SPACE).astype(np.int32)
    begins = np.append(True, row[1:] != row[:-1] + step[:-1])
    width = max(map(len, found))
    replacements = np.array([[*characters, *[-1] * (width - len(characters))] for characters in found], np.int32)
    return np.flatnonzero(begins).astype(np.int32), row[begins], step[begins], replacements


def _plain(character):
    """A character as a small letter without accents; may be several, or none."""
    parts = unicodedata.normalize("NFD", character)
    return "".join(part.lower() for part in parts if unicodedata.category(part) != "Mn")


@functools.cache
def _kinds():
    """The first code points of runs of one kind, and that kind."""
    kinds = np.full(CODES, OF_WORD, np.int32)
    for code in range(CODES):
        category = unicodedata.category(chr(code))[0]
        if category == "P" or (code < 0x7F and category == "S"):  # Of ASCII all signs count as punctuation.
            kinds[code] = ALONE
    for first, last in CHINESE:
        kinds[first : last + 1] = ALONE
    kinds[ord(" ")] = BETWEEN
    starts = np.flatnonzero(np.append(True, kinds[1:] != kinds[:-1])).astype(np.int32)
    return starts, kinds[starts]
