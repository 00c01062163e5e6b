"""Loads an export as a server does and answers requests; run by `served.py` in a process of its own.

Arrays cross the pipe by name, as 8 bytes of length and NumPy's own format; text as bytes of a fixed length, each with a
sign at its end, for NumPy drops zero bytes there. This file imports nothing of the project.
"""

import io
import json
import sys

import numpy as np

SIGNATURE = ""  # Under this name, which no input has, a request says which signature is meant.


def send(pipe, arrays):
    """Writes arrays (name -> array) to a binary pipe."""
    contents = io.BytesIO()
    # The names travel as an array too: as keywords, "file" and "allow_pickle" would be taken for NumPy's own.
    np.savez(contents, list(arrays), *map(_plain, arrays.values()))
    pipe.write(len(contents.getvalue()).to_bytes(8, "little") + contents.getvalue())
    pipe.flush()


def receive(pipe):
    """Reads arrays from a binary pipe; None where it has ended, EOFError where it ends in the middle."""
    length = pipe.read(8)
    if not length:
        return None
    contents = pipe.read(int.from_bytes(length, "little"))
    if len(contents) < int.from_bytes(length, "little"):
        raise EOFError
    with np.load(io.BytesIO(contents), allow_pickle=False) as loaded:
        names, *arrays = (loaded[f"arr_{number}"] for number in range(len(loaded.files)))
    return dict(zip(names.tolist(), map(_without_sign, arrays), strict=True))


def _plain(array):
    """`array`, or for text the same as bytes of a fixed length, each with a sign at its end."""
    array = np.asarray(array)
    if array.dtype.kind not in "OSU":
        return array
    encoded = [(text.encode() if isinstance(text, str) else text) + b"." for text in array.ravel().tolist()]
    return np.array(encoded, "S").reshape(array.shape)


def _without_sign(array):
    if array.dtype.kind != "S":
        return array
    texts = np.empty(array.shape, object)
    texts.flat = [text[:-1] for text in array.ravel().tolist()]
    return texts


def main():
    # TensorFlow itself imports Keras where it is installed. Blocked: an export must be served without either.
    sys.modules["keras"] = sys.modules["zoo"] = None
    import tensorflow as tf

    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    loaded = tf.saved_model.load(sys.argv[1])  # Kept: a signature does not keep its variables alive.
    modules = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
    facts = {"tensorflow": tf.__version__, "keras_loaded": "keras" in modules, "zoo_loaded": "zoo" in modules}
    answers.write(json.dumps(facts).encode() + b"\n")
    answers.flush()
    while (inputs := receive(requests)) is not None:
        signature = loaded.signatures[inputs.pop(SIGNATURE).item().decode()]
        outputs = signature(**{name: tf.constant(array) for name, array in inputs.items()})
        send(answers, {name: tensor.numpy() for name, tensor in outputs.items()})


if __name__ == "__main__":
    main()
