"""The proof that an export is what was trained: a fresh process that has only TensorFlow scores the same test data."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recipes.common.data import Split
from recipes.common.flags import Failed
from recipes.common.report import classification_scores
from recipes.common.served_process import receive, send

SERVER = Path(__file__).with_name("served_process.py")
TOLERANCE = 1e-3  # Of a probability: other batch sizes and kernels round differently; a wrong weight shows far more.


def probabilities(version: Path, test: Split, *, batch_size: int = 256) -> tuple[np.ndarray, dict]:
    """Sends the raw test records to the export's `serving_default` in a process without Keras and zoo.

    Args:
        version: The export's version folder.
        test: Examples whose inputs are what a client would send.
        batch_size: Records per request.

    Returns:
        The probabilities (N, K) that it answered, and what it says of itself: `tensorflow` (its version),
        `keras_loaded` and `zoo_loaded` (both false) and `examples_per_second`.

    Raises:
        Failed: If the export cannot be loaded or asked.
    """
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    # -I keeps the current folder and PYTHONPATH out, so that the process cannot even find this checkout's zoo.
    command = [sys.executable, "-I", str(SERVER), str(version)]
    answers = []
    with (
        tempfile.TemporaryFile() as printed,  # Not a pipe: it could fill up and halt the process.
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed, env=environment
        ) as process,
    ):
        try:
            facts = json.loads(process.stdout.readline() or b"null")
            began = time.monotonic()
            for inputs, _ in test.raw_batches(batch_size).as_numpy_iterator():
                send(process.stdin, inputs)
                answer = receive(process.stdout)
                if answer is None:
                    raise EOFError
                answers.append(answer)
            facts["examples_per_second"] = round(test.size / (time.monotonic() - began), 1)
            process.stdin.close()
        except (OSError, EOFError, TypeError, ValueError):
            process.kill()
            printed.seek(0)
            said = printed.read().decode(errors="replace").strip().splitlines()
            raise Failed(f"the export {version} cannot be served: {said[-1] if said else 'no answer'}") from None
    return np.concatenate(answers), facts


def check(version: Path, test: Split, class_names: Sequence[str], trained: dict, trained_probabilities) -> dict:
    """Returns the scores of the served model, once it is sure that they are the trained one's.

    Raises:
        Failed: If accuracy or any probability differs, or the export cannot be served.
    """
    answered, facts = probabilities(version, test)
    served = classification_scores(test.labels(), answered, class_names) | facts
    difference = float(np.abs(trained_probabilities - answered).max())
    if trained["accuracy"] != served["accuracy"] or not difference <= TOLERANCE:
        raise Failed(
            f"the served model is not the trained one: accuracy {served['accuracy']:.4f} instead of "
            f"{trained['accuracy']:.4f}, largest difference of a probability {difference:.1e}. Nothing was exported."
        )
    print(
        f"Served by a process without Keras and zoo: accuracy {served['accuracy']:.4f}, the same as trained "
        f"(largest difference of a probability: {difference:.0e})."
    )
    return served
