"""Image-classification data: scikit-learn's digits, folders of images, and every such set that TFDS has."""

import dataclasses
import difflib
import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import tensorflow as tf

from recipes.common.data import Split
from zoo.checks import BadInput
from zoo.serving import FILE_CHANNELS, decode_image, resize_image

IN_MEMORY_BYTES = 2 << 30  # A data set whose pixels need more is streamed from its files in every epoch.
SPLIT_SEED = 0  # Of the splits made here: the same for every --seed, so that no run trains on another's test images.
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1  # Of all the images where a set has no test split; of the training images.
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
NETWORK_PATIENCE = 5  # Seconds to wait for a host's first answer.


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set for image classification. Images are uint8, 0..255, `image_shape`; labels index `class_names`."""

    name: str
    train: Split
    validation: Split
    test: Split
    image_shape: tuple[int, int, int]
    class_names: list[str]
    fingerprint: str

    def describe(self) -> dict:
        """Returns what `run.json` says of the data."""
        sizes = {part: getattr(self, part).size for part in ("train", "validation", "test")}
        return {"name": self.name, "sizes": sizes, "image_shape": self.image_shape, "fingerprint": self.fingerprint}


def load(
    name: str, *, image_size: tuple[int, int] | None = None, limit: int | None = None, quick: bool = False
) -> ImageData:
    """Loads an image-classification data set in three splits that share no image.

    Args:
        name: `"digits"` (1,797 handwritten digits, 8x8, that come with scikit-learn), the path of a folder with one
            sub-folder of images per class, or a TFDS name such as `"mnist"`. A TFDS set's own splits are used; where
            it has none for testing, and in the other two, a stratified fifth is held out for testing. A validation
            split is a tenth of the training images unless TFDS has one.
        image_size: (height, width) to resize every image to; needed where they differ in size.
        limit: Training images at most.
        quick: Whether a few images per split will do (a dry run).

    Raises:
        ValueError: If there is no such data set, it cannot be fetched, or it is not for image classification.
    """
    if name == "digits":
        data = _digits(image_size)
    elif os.path.isdir(name):
        data = _folder(Path(name), image_size)
    elif os.sep in name or name.startswith("."):
        raise BadInput(f"--data {name}: there is no such folder.")
    else:
        data = _tfds(name, image_size)
    parts = {"train": data.train.take(limit) if limit else data.train}
    if quick:
        parts |= {"validation": data.validation.take(64), "test": data.test.take(64)}
    for part in ("train", "validation", "test"):
        if not parts.get(part, getattr(data, part)).size:
            raise BadInput(f"--data {name}: too few images, none is left for the {part} split.")
    return dataclasses.replace(data, **parts)


def random_shift(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shifts each image (B, H, W, C) by up to a tenth of its side in each direction, repeating its border."""
    batch, height, width, _ = images.shape
    for axis, side, axis_seed in ((1, height, seed), (2, width, seed + 1)):
        most = max(1, side // 10)
        shifts = tf.random.stateless_uniform((batch, 1), axis_seed, -most, most + 1, dtype=tf.int32)
        sources = tf.clip_by_value(tf.range(side)[tf.newaxis] + shifts, 0, side - 1)
        images = tf.gather(images, sources, axis=axis, batch_dims=1)
    return images


def random_shift_and_flip(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Shifts as `random_shift` does and mirrors half of the images left to right."""
    flipped = tf.random.stateless_uniform((images.shape[0], 1, 1, 1), seed + 2) < 0.5
    return random_shift(tf.where(flipped, tf.reverse(images, axis=[2]), images), seed)


AUGMENTATIONS = {"none": None, "shift": random_shift, "shift-flip": random_shift_and_flip}


def _digits(image_size):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]  # Stored as 0..16.
    if image_size:
        images = np.stack([resize_image(tf.constant(image), image_size).numpy() for image in images])
    labels = digits.target.astype(np.int64)
    fingerprint = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    return ImageData(
        "digits",
        *_split_in_memory(images, labels),
        image_shape=images.shape[1:],
        class_names=[str(digit) for digit in range(10)],
        fingerprint=fingerprint,
    )


def _folder(folder, image_size):
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = {name: sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES) for name in classes}
    class_names = [name for name in classes if files[name]]
    needed = f"put the {', '.join(SUFFIXES)} files of each class into a sub-folder of its own"
    if not class_names:
        raise BadInput(f"--data {folder}: no images found; {needed}.")
    if len(class_names) == 1:
        raise BadInput(f"--data {folder}: only one class, {class_names[0]!r}, has images; {needed}, at least two.")
    rare = [name for name in class_names if len(files[name]) < 5]
    if rare:
        raise BadInput(f"--data {folder}: fewer than 5 images of {', '.join(map(repr, rare))}; each split needs some.")
    paths = [path for name in class_names for path in files[name]]
    labels = np.repeat(np.arange(len(class_names)), [len(files[name]) for name in class_names]).astype(np.int64)
    sizes, channels, fingerprint = _inspect(paths, folder)
    if len(sizes) > 1 and image_size is None:
        told = ", ".join(f"{height}x{width} ({count} images)" for (height, width), count in sizes.most_common(3))
        raise BadInput(
            f"--data {folder}: the images differ in size: {told}{', ...' if len(sizes) > 3 else ''}. "
            "Give one size for all by --image-size HEIGHT WIDTH."
        )
    image_shape = (*(image_size or next(iter(sizes))), channels)

    def read(path, label):
        return decode_image(tf.io.read_file(path), image_shape), label

    names = np.array([str(path) for path in paths])
    splits = []
    for names_part, labels_part in _stratified_parts(names, labels):
        examples = tf.data.Dataset.from_tensor_slices((names_part, labels_part))
        splits.append(_from_dataset(examples, len(labels_part), image_shape, read, len(paths)))
    return ImageData(str(folder), *splits, image_shape=image_shape, class_names=class_names, fingerprint=fingerprint)


def _inspect(paths, folder):
    """Decodes every file once: the sizes with their counts, the channels that all fit in, and a hash of everything."""
    from PIL import Image, UnidentifiedImageError

    sizes, channels, contents_hash = Counter(), 1, hashlib.sha256()
    for path in paths:
        contents = path.read_bytes()
        contents_hash.update(f"{path.relative_to(folder)}\0{len(contents)}\0".encode() + contents)
        try:
            with Image.open(path) as image:
                image.load()
                sizes[image.height, image.width] += 1
                channels = max(channels, 1 if image.mode in ("1", "L", "I;16", "I") else 3)
            tf.io.decode_image(contents, expand_animations=False)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, tf.errors.InvalidArgumentError) as error:
            reason = str(error).splitlines()[0]
            raise BadInput(f"{path} is not a sound image ({reason}): mend or remove it.") from None
    return sizes, channels, contents_hash.hexdigest()


def _tfds(name, image_size):
    import tensorflow_datasets as tfds

    if not os.isatty(1):
        tfds.disable_progress_bar()
    builder = _builder(tfds, name)
    if not _is_prepared(builder):
        _prepare(tfds, builder, name)
    image_key, label_key = _keys(tfds, builder, name)
    image_shape = builder.info.features[image_key].shape
    if image_size:
        image_shape = (*image_size, image_shape[-1])
    if None in image_shape:
        raise BadInput(
            f"--data {name}: its images have the shape {image_shape}, so they may differ in size. "
            "Give one size for all by --image-size HEIGHT WIDTH."
        )
    if image_shape[-1] not in FILE_CHANNELS or builder.info.features[image_key].np_dtype != np.uint8:
        raise BadInput(f"--data {name}: its images have {image_shape[-1]} channels; 1, 3 or 4 of uint8 are needed.")

    def read(example):
        image = example[image_key]
        if image_size:
            image = resize_image(image, image_size)
        return tf.ensure_shape(image, image_shape), tf.cast(example[label_key], tf.int64)

    total = sum(builder.info.splits[part].num_examples for part in builder.info.splits)
    splits = []
    for part in _tfds_parts(builder.info.splits, name):
        size = builder.info.splits[part].num_examples
        splits.append(_from_dataset(builder.as_dataset(split=part), size, image_shape, read, total))
    shards = [(part, info.num_examples, info.num_bytes) for part, info in sorted(builder.info.splits.items())]
    return ImageData(
        builder.info.full_name,
        *splits,
        image_shape=image_shape,
        class_names=list(builder.info.features[label_key].names),
        fingerprint=hashlib.sha256(repr((builder.info.full_name, shards)).encode()).hexdigest(),
    )


def _builder(tfds, name):
    try:
        return tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, ValueError, ImportError) as error:
        names = [*tfds.list_builders(with_community_datasets=False), "digits"]
        if re.split(r"[/:]", name)[0] in names:
            raise BadInput(f"--data {name}: {str(error).splitlines()[0]}") from None
        near = difflib.get_close_matches(name.lower(), names, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "TFDS's catalogue lists its names."
        raise BadInput(f"--data {name}: no data set and no folder has this name. {hint}") from None


def _is_prepared(builder):
    return (Path(builder.data_dir) / "dataset_info.json").exists() and bool(builder.info.splits)


def _prepare(tfds, builder, name):
    """Downloads and prepares a set, after a look whether its hosts answer at all (TFDS would retry for minutes)."""
    import requests

    advice = (
        f"On a machine with a network run `python -m tensorflow_datasets.scripts.cli.main build {name}`, copy its "
        f"folder {builder.data_dir} here, and set TFDS_DATA_DIR to the folder that holds it. "
        "`--data digits` and a folder of images need no network."
    )
    try:
        for url in list(getattr(builder, "url_infos", {}))[:1]:
            requests.head(url, timeout=NETWORK_PATIENCE, allow_redirects=True)
        builder.download_and_prepare()
    except (requests.RequestException, ConnectionError, OSError) as error:
        raise BadInput(
            f"--data {name}: not prepared in {builder.data_dir}, and it could not be fetched "
            f"({type(error).__name__}). {advice}"
        ) from error


def _keys(tfds, builder, name):
    features = builder.info.features
    found = {
        kind: [key for key, feature in features.items() if isinstance(feature, kind)]
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
    }
    images, labels = found.values()
    if builder.info.supervised_keys and len(builder.info.supervised_keys) == 2:
        image, label = builder.info.supervised_keys
        if image in images and label in labels:
            return image, label
    if len(images) != 1 or len(labels) != 1:
        raise BadInput(
            f"--data {name}: not an image-classification set (its features are {', '.join(features)}); "
            "one image and one class label are needed."
        )
    return images[0], labels[0]


def _tfds_parts(splits, name):
    """Returns TFDS's names of the parts for training, validation and testing."""
    if "train" not in splits:
        raise BadInput(f"--data {name}: it has no training split, only {', '.join(splits)}.")
    validation = next((part for part in ("validation", "val", "dev") if part in splits), None)
    kept = 100 - round(100 * VALIDATION_SHARE)
    if "test" in splits:
        return ("train", validation, "test") if validation else (f"train[:{kept}%]", f"train[{kept}%:]", "test")
    if validation:  # As with ImageNet, whose validation split is what the field reports on.
        return f"train[:{kept}%]", f"train[{kept}%:]", validation
    train, held_out = 100 - round(100 * TEST_SHARE), round(100 * (1 - TEST_SHARE) * (1 - VALIDATION_SHARE))
    return f"train[:{held_out}%]", f"train[{held_out}%:{train}%]", f"train[{train}%:]"


def _from_dataset(examples, size, image_shape, read, total):
    """Maps `read` over the examples; loads them into memory where all `total` images of the data set fit there."""
    examples = examples.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    if total * int(np.prod(image_shape)) > IN_MEMORY_BYTES:
        return Split(size=size, examples=examples)
    images, labels = np.empty((size, *image_shape), np.uint8), np.empty(size, np.int64)
    begin = 0
    for batch_images, batch_labels in examples.batch(256).prefetch(2):
        end = begin + len(batch_labels)
        images[begin:end], labels[begin:end] = batch_images, batch_labels
        begin = end
    return Split.in_memory(images[:begin], labels[:begin])


def _split_in_memory(images, labels):
    return [Split.in_memory(*part) for part in _stratified_parts(images, labels)]


def _stratified_parts(inputs, labels):
    """Returns (inputs, labels) of the training, validation and test split, each class in its share, shuffled."""
    from sklearn.model_selection import train_test_split

    def split(inputs, labels, share):
        least = len(np.unique(labels))
        count = max(least, round(share * len(labels)))
        return train_test_split(inputs, labels, test_size=count, stratify=labels, random_state=SPLIT_SEED)

    rest, test, rest_labels, test_labels = split(inputs, labels, TEST_SHARE)
    train, validation, train_labels, validation_labels = split(rest, rest_labels, VALIDATION_SHARE)
    return (train, train_labels), (validation, validation_labels), (test, test_labels)
