"""Several machines that train one model: who takes part, what they agree on, and how they end together.

The engine is TensorFlow's `MultiWorkerMirroredStrategy`: the same command runs on every machine, each computes its
share of every batch, and gradients are summed over all of them. Worker 0, the chief, alone has a run folder, prints,
scores, reports and exports; the others need no folder that is shared with it: what a resumed run begins with comes to
them from the chief. Whatever ends one worker ends all of them, so that a launcher can start all again with `--resume`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from recipes.common.flags import Interrupted
from zoo.checks import BadInput

ADDRESS = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}")
SLURM_PORT = 20_000  # And so many more as the last digits of the job's number say, so that jobs do not meet.
_WAITING: list[tf.distribute.Strategy] = []  # Those whose other workers wait for this one.
POLL = 0.2  # Seconds.
CHUNK = 1 << 22  # Numbers of 4 bytes that are sent at once.


@dataclasses.dataclass(frozen=True)
class Workers:
    """Who takes part.

    Attributes:
        addresses: "host:port" of each worker, the chief's first; empty where this process trains alone.
        index: Which of them this process is.
    """

    addresses: tuple[str, ...] = ()
    index: int = 0

    @property
    def several(self) -> bool:
        return len(self.addresses) > 1

    @property
    def chief(self) -> bool:
        return self.index == 0


def named(args) -> Workers:
    """Returns the workers that `--workers` and `--worker` name, or else the environment's `TF_CONFIG`.

    Raises:
        ValueError: If an address is no host and port, stands there twice, or this worker is none of them.
    """
    told, index = getattr(args, "workers", None), getattr(args, "worker", None)
    if told == "slurm":
        addresses, index, where = *_of_slurm(), "--workers slurm"
    elif told:
        addresses, where = told.split(","), f"--workers {told}"
        if index is None:
            raise BadInput(f"{where}: say by --worker which of the {len(addresses)} this is, from 0.")
    elif index is not None:
        raise BadInput(f"--worker {index}: name all of them by --workers HOST:PORT,HOST:PORT,...")
    elif os.environ.get("TF_CONFIG"):
        addresses, index, where = *_of_tf_config(os.environ["TF_CONFIG"]), "TF_CONFIG"
    else:
        return Workers()
    wrong = [address for address in addresses if not ADDRESS.fullmatch(address)]
    if wrong:
        raise BadInput(f"{where}: {wrong[0]!r} is no HOST:PORT.")
    if len(set(addresses)) < len(addresses):
        raise BadInput(f"{where}: an address stands there twice; each worker has its own.")
    if not 0 <= index < len(addresses):
        raise BadInput(f"{where}: there are {len(addresses)} workers, from 0, and this should be worker {index}.")
    return Workers(tuple(addresses), index)


def _of_tf_config(text):
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        others = sorted(cluster.keys() - {"chief", "worker"})
        if others:
            raise BadInput(
                f"TF_CONFIG names {', '.join(others)}: only a chief and workers take part here. Parameter servers do "
                "not work with Keras 3, and the chief evaluates."
            )
        chiefs, workers = list(cluster.get("chief", [])), list(cluster.get("worker", []))
        return [*chiefs, *workers], int(task["index"]) + (len(chiefs) if task["type"] == "worker" else 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            'TF_CONFIG cannot be understood: needed is {"cluster": {"worker": ["host:port", ...]}, "task": {"type": '
            f'"worker", "index": 0}}}}, and it is {text!r}.'
        ) from None


def _of_slurm():
    missing = [name for name in ("SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_JOB_ID") if name not in os.environ]
    if missing:
        raise BadInput(f"--workers slurm: {missing[0]} is not set; start the command by srun.")
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=SLURM_PORT + int(os.environ["SLURM_JOB_ID"]) % 10_000,
        gpus_per_node=1,  # It looks nothing up then; which GPUs a task has is for SLURM to say.
        gpus_per_task=1,
        auto_set_gpu=False,
    )
    return resolver.cluster_spec().as_dict()["worker"], int(os.environ["SLURM_PROCID"])


def connect(workers: Workers, *, timeout: float) -> tf.distribute.Strategy:
    """Returns the strategy over all workers, when all of them are there.

    Args:
        workers: Several of them.
        timeout: Seconds to wait for the last one.

    Raises:
        ValueError: If this worker's port is in use.
        Interrupted: If a worker is not there in time.
    """
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": workers.addresses}, "task": {"type": "worker", "index": workers.index}}
    )
    _wait_for_all(workers, timeout)
    gpus = tf.config.list_physical_devices("GPU")
    kinds = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(implementation=kinds.NCCL if gpus else kinds.RING)
    with _at_most(timeout):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if not workers.chief:
        print(f"Worker {workers.index} of {len(workers.addresses)} is there; worker 0 tells what happens.")
        sys.stdout.flush()
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends.
    return strategy


def _wait_for_all(workers, timeout):
    """Returns when every worker's address answers: TensorFlow itself would wait for many minutes, deaf to signals."""
    missing = [address for number, address in enumerate(workers.addresses) if number != workers.index]
    end = time.monotonic() + timeout
    with _listening(workers.addresses[workers.index]):
        while missing:
            missing = [address for address in missing if not _answers(address)]
            if missing and time.monotonic() > end:
                raise Interrupted(
                    f"After {timeout:g} s there is no answer from {', '.join(missing)}; this is worker {workers.index} "
                    f"of {len(workers.addresses)}. Start all of them, or allow more time by --worker-timeout."
                )
            time.sleep(POLL * bool(missing))


def _listening(address):
    """A socket at this worker's own port, by which the others see that it is there."""
    port = int(address.rpartition(":")[2])
    try:
        both = socket.has_dualstack_ipv6()
        return socket.create_server(("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both)
    except (OSError, OverflowError) as error:
        raise BadInput(f"{address}: this worker cannot use port {port} ({error}); name another.") from None


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=POLL):
            return True
    except (OSError, OverflowError):
        return False


@contextlib.contextmanager
def _at_most(seconds):
    """Has the system end the process after some time: inside, no signal handler of Python's runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def are_several(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a strategy is one over several machines."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes and tells."""
    return not are_several(strategy) or strategy.cluster_resolver.task_id == 0


def own_share(batches: tf.data.Dataset, strategy: tf.distribute.Strategy):
    """Returns what a strategy's `fit` takes: of each batch, every worker's replicas have rows of their own.

    Replica r of N has the r-th N-th of the rows, as in one machine's strategy, so that each example is seen once.
    """
    if not are_several(strategy):
        return batches
    count, here = strategy.num_replicas_in_sync, len(strategy.extended.worker_devices)

    def of_this_worker(context):
        first = context.input_pipeline_id * here

        def cut(*batch):
            def rows(tensor):
                each = tf.shape(tensor)[0] // count
                mine = tensor[first * each : (first + here) * each]
                return tf.reshape(mine, tf.concat([[here, each], tf.shape(tensor)[1:]], 0))

            return tf.nest.map_structure(rows, batch)

        return batches.map(cut, num_parallel_calls=tf.data.AUTOTUNE).unbatch().prefetch(2)

    return strategy.distribute_datasets_from_function(of_this_worker)


def total(strategy: tf.distribute.Strategy, numbers: np.ndarray) -> np.ndarray:
    """Returns the sum of all workers' integers or floats (N,); every worker has to call it at the same point."""
    if not are_several(strategy):
        return np.asarray(numbers)
    here, mine = len(strategy.extended.worker_devices), np.asarray(numbers)
    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(mine if context.replica_id_in_sync_group % here == 0 else np.zeros_like(mine))
    )
    return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()


def from_chief(strategy: tf.distribute.Strategy, contents: bytes) -> bytes:
    """Returns the chief's bytes on every worker; what the others pass is not looked at."""
    if not are_several(strategy):
        return contents
    mine = contents if is_chief(strategy) else b""
    size = int(total(strategy, np.array([len(mine)], np.int64))[0])
    padded = np.frombuffer(mine + bytes(-len(mine) % 4), np.int32) if mine else np.zeros(-(-size // 4), np.int32)
    sent = [total(strategy, padded[begin : begin + CHUNK]) for begin in range(0, len(padded), CHUNK)]
    return np.concatenate([np.zeros(0, np.int32), *sent]).tobytes()[:size]


def check_alike(strategy: tf.distribute.Strategy, what: str, text: str) -> None:
    """Raises `BadInput` where not all workers have the same, such as the fingerprint of their data."""
    if not are_several(strategy):
        return
    mine = np.frombuffer(hashlib.sha256(text.encode()).digest()[:4], np.uint32).astype(np.int64)
    chiefs = total(strategy, mine if is_chief(strategy) else np.zeros(1, np.int64))
    differing = int(total(strategy, np.array([mine[0] != chiefs[0]], np.int64))[0])
    if differing:
        raise BadInput(f"{differing} of the workers have other {what} than worker 0: all need the same.")


@contextlib.contextmanager
def lost_ones_told(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turns the errors of a worker whose peers are gone into `Interrupted`."""
    try:
        yield
    except tf.errors.OpError as error:
        if not are_several(strategy):
            raise
        raise Interrupted(
            f"The workers lost each other ({type(error).__name__}). Start all of them again, with --resume."
        ) from None


def let_the_others_end() -> None:
    """Called by the chief when all is done."""
    while _WAITING:
        total(_WAITING.pop(), np.zeros(1, np.int64))


def leave_it_to_the_chief(strategy: tf.distribute.Strategy) -> None:
    """Returns on the chief alone; the other workers wait until it has ended well, and end with it."""
    if is_chief(strategy):
        _WAITING.append(strategy)
        return
    with lost_ones_told(strategy):
        total(strategy, np.zeros(1, np.int64))
    raise SystemExit(0)
