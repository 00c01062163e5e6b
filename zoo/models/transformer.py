"""The Transformer from one sequence to another. Shape letters: B batch, S source positions, T target positions,
V target vocabulary, D hidden_dim."""

import keras
from keras import layers

from zoo import checks
from zoo.attention import SinusoidalPositions, TransformerBlock
from zoo.layers import Embedding

TRANSFORMER_SIZES = {  # `build_transformer(37_000, 37_000, **TRANSFORMER_SIZES["base"])`; Vaswani et al. 2017, table 3.
    "tiny": {"num_layers": 2, "num_heads": 4, "hidden_dim": 64},
    "base": {"num_layers": 6, "num_heads": 8, "hidden_dim": 512},
    "big": {"num_layers": 6, "num_heads": 16, "hidden_dim": 1024, "dropout_rate": 0.3},
}


def build_transformer(
    source_vocabulary_size: int,
    target_vocabulary_size: int,
    *,
    num_layers: int = 6,
    num_heads: int = 8,
    hidden_dim: int = 512,
    intermediate_dim: int | None = None,
    norm_first: bool = False,
    tie_weights: bool = True,
    share_embeddings: bool = False,
    dropout_rate: float = 0.1,
    name: str = "transformer",
) -> keras.Model:
    """Builds the Transformer of "Attention Is All You Need": an encoder and a decoder.

    The defaults are the paper's base model but for its vocabulary, which source and target share there
    (`share_embeddings`). Positions are the paper's sinusoids, so that there is no longest text.

    Args:
        source_vocabulary_size: Tokens of the source, at least 2; token 0 is padding, which nothing attends to.
        target_vocabulary_size: V, those of the target, likewise.
        num_layers: Blocks of the encoder, and as many of the decoder.
        num_heads: Attention heads; they divide `hidden_dim`.
        hidden_dim: D, numbers at a position; even.
        intermediate_dim: Width of the feed-forward nets. None: 4 times `hidden_dim`.
        norm_first: Whether what goes into each part is normalised, which trains without warm-up (Xiong et al. 2020,
            https://arxiv.org/abs/2002.04745), or as in the paper the sum that comes out.
        tie_weights: Whether the logits reuse the target embedding's matrix.
        share_embeddings: Whether source and target share one vocabulary and its embedding.
        dropout_rate: Share of the embeddings, the attention weights and what each part adds that is dropped in
            training, in [0, 1).
        name: Name of the model.

    Returns:
        An uncompiled model from `source` (B, S) and `target` (B, T), int32, to logits (B, T, V), float32, of the target
        token after each. Train it on targets shifted by one, with the loss at padding left out.

    Raises:
        ValueError: If a size is no positive integer, heads do not divide, `hidden_dim` is odd, a vocabulary has fewer
            than 2 tokens, shared ones differ in size, or `dropout_rate` is outside [0, 1).

    Reference:
        Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762.

    Example:

    >>> from zoo import build_transformer
    >>> model = build_transformer(100, 80, num_layers=2, num_heads=2, hidden_dim=32)
    >>> model.output_shape
    (None, None, 80)
    """
    source_vocabulary_size = checks.vocabulary_size(source_vocabulary_size, "source_vocabulary_size")
    target_vocabulary_size = checks.vocabulary_size(target_vocabulary_size, "target_vocabulary_size")
    num_layers = checks.positive_int("num_layers", num_layers)
    hidden_dim = checks.positive_int("hidden_dim", hidden_dim)
    checks.heads(num_heads, hidden_dim)
    dropout_rate = checks.rate("dropout_rate", dropout_rate)
    if share_embeddings and source_vocabulary_size != target_vocabulary_size:
        raise checks.BadInput(
            f"share_embeddings: the vocabularies have {source_vocabulary_size} and {target_vocabulary_size} tokens; "
            "shared ones are one and the same."
        )

    def embed(tokens, embedding, prefix):
        x = embedding(tokens)
        x = SinusoidalPositions(scale=hidden_dim**0.5, name=f"{prefix}_positions")(x)
        return layers.Dropout(dropout_rate, name=f"{prefix}_dropout")(x) if dropout_rate else x

    def embedding(size, name, tied=True):
        # So that they have unit length once they are scaled, and logits of tied weights begin small.
        begin = keras.initializers.RandomNormal(stddev=hidden_dim**-0.5)
        return Embedding(size, hidden_dim, tied, begin, mask_zero=True, reverse_dtype="float32", name=name)

    block = {
        "intermediate_dim": 4 * hidden_dim if intermediate_dim is None else intermediate_dim,
        "norm_first": norm_first,
        "activation": "relu",
        "dropout_rate": dropout_rate,
    }
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    of_target = embedding(target_vocabulary_size, "target_embedding", tie_weights)
    of_source = of_target if share_embeddings else embedding(source_vocabulary_size, "source_embedding")
    x = embed(source, of_source, "source")  # (B, S, D)
    for index in range(num_layers):
        x = TransformerBlock(num_heads, name=f"encoder_{index}", **block)(x)
    encoded = layers.LayerNormalization(epsilon=1e-5, name="encoder_norm")(x) if norm_first else x
    x = embed(target, of_target, "target")  # (B, T, D)
    for index in range(num_layers):
        x = TransformerBlock(num_heads, causal=True, cross=True, name=f"decoder_{index}", **block)(x, encoded)
    if norm_first:
        x = layers.LayerNormalization(epsilon=1e-5, name="decoder_norm")(x)
    return keras.Model({"source": source, "target": target}, of_target(x, reverse=True), name=name)
