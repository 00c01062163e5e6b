"""Loads an export as a server does and answers requests; run by `served.py` in a process of its own.

An array crosses the pipe as 8 bytes of length and NumPy's own format. This file imports nothing of the project.
"""

import io
import json
import sys


def send(pipe, array):
    """Writes one array to a binary pipe."""
    import numpy as np

    contents = io.BytesIO()
    np.save(contents, array, allow_pickle=False)
    pipe.write(len(contents.getvalue()).to_bytes(8, "little") + contents.getvalue())
    pipe.flush()


def receive(pipe):
    """Reads one array from a binary pipe; None where it has ended."""
    import numpy as np

    length = pipe.read(8)
    if not length:
        return None
    return np.load(io.BytesIO(pipe.read(int.from_bytes(length, "little"))), allow_pickle=False)


def main():
    # TensorFlow itself imports Keras where it is installed. Blocked: an export must be served without either.
    sys.modules["keras"] = sys.modules["zoo"] = None
    import tensorflow as tf

    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    loaded = tf.saved_model.load(sys.argv[1])  # Kept: the signature does not keep its variables alive.
    serve = loaded.signatures["serving_default"]
    ((input_name, _),) = serve.structured_input_signature[1].items()
    modules = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
    facts = {"tensorflow": tf.__version__, "keras_loaded": "keras" in modules, "zoo_loaded": "zoo" in modules}
    answers.write(json.dumps(facts).encode() + b"\n")
    answers.flush()
    while (inputs := receive(requests)) is not None:
        send(answers, serve(**{input_name: tf.constant(inputs)})["probabilities"].numpy())


if __name__ == "__main__":
    main()
