"""`--from`: a published checkpoint that a recipe starts from."""

import functools

import keras

import zoo
from zoo.attention import Positions
from zoo.checks import BadInput
from zoo.tokenizers import Tokenizer


def tokenizer(args, family: str) -> Tokenizer | None:
    """Returns the tokenizer of the checkpoint that `--from` names; None where it names none.

    Args:
        args: With `from`, a folder or a name on the hub, and `sequence_length`.
        family: What it must be: "gpt" or "bert".

    Raises:
        ValueError: If there is no such checkpoint, it is of another family, has no tokenizer or one that does not fit,
            or fewer positions than a row is to have.
    """
    source = getattr(args, "from")
    if source is None:
        return None
    network, found = _load(source)
    if network.name != family:
        raise BadInput(f"--from {source}: it is a {network.name}, and this recipe trains a {family}.")
    size = network.get_layer("embedding").input_dim
    if found is None or found.vocabulary_size != size:
        told = "no tokenizer" if found is None else f"a tokenizer of {found.vocabulary_size:,} tokens"
        raise BadInput(
            f"--from {source}: it has {told}, and the model has {size:,}; needed is the one it was made with."
        )
    most = [layer.max_sequence_length for layer in network.layers if isinstance(layer, Positions)]
    if most and args.sequence_length > most[0]:
        raise BadInput(
            f"--sequence-length {args.sequence_length}: the model of --from has {most[0]:,} positions at most."
        )
    return found


def model(args, **choices) -> keras.Model:
    """Returns the model of the checkpoint that `--from` names, as `zoo.load_pretrained` makes it by `choices`."""
    return zoo.load_pretrained(getattr(args, "from"), **choices)[0]


@functools.lru_cache(maxsize=1)
def _load(source):
    return zoo.load_pretrained(source)
