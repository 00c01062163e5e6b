"""zoo: reference models for Keras 3 that people can train, trust and serve.

Every public name is imported on its first use, so that `import zoo` loads neither Keras nor TensorFlow.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "build_churn_classifier",
    "build_cnn",
    "build_feature_transformer",
    "build_lstm_text_generator",
    "build_mlp",
    "build_regressor",
]

if TYPE_CHECKING:  # What type checkers and editors read: the true signatures, and nothing for a misspelt name.
    from zoo.models.churn_classifier import build_churn_classifier as build_churn_classifier
    from zoo.models.cnn import build_cnn as build_cnn
    from zoo.models.feature_transformer import build_feature_transformer as build_feature_transformer
    from zoo.models.lstm_text_generator import build_lstm_text_generator as build_lstm_text_generator
    from zoo.models.mlp import build_mlp as build_mlp
    from zoo.models.regressor import build_regressor as build_regressor
else:

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module 'zoo' has no attribute {name!r}; it has {', '.join(__all__)}")
        from importlib import import_module

        # `build_cnn` lives in `zoo/models/cnn.py`: one word, every place.
        value = getattr(import_module(f"zoo.models.{name.removeprefix('build_')}"), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
