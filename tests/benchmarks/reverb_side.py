"""Reverb's half of `against_reverb.py`: runs in Reverb's own environment, and is told line by line what to measure."""

import subprocess
import sys
import time

import numpy as np
import reverb
import tensorflow as tf

LENGTH = 50
BATCH_SIZE = 50
TABLE = "windows"


def serve(action_size):
    """A server with one table of windows, in this process, until its standard input closes."""
    signature = {
        "image": tf.TensorSpec((LENGTH, 64, 64, 3), tf.uint8),
        "action": tf.TensorSpec((LENGTH, action_size), tf.float32),
        "reward": tf.TensorSpec((LENGTH,), tf.float32),
        "discount": tf.TensorSpec((LENGTH,), tf.float32),
        "is_first": tf.TensorSpec((LENGTH,), tf.bool),
    }
    table = reverb.Table(
        TABLE,
        sampler=reverb.selectors.Uniform(),
        remover=reverb.selectors.Fifo(),
        max_size=10**7,
        rate_limiter=reverb.rate_limiters.MinSize(1),
        signature=signature,
    )
    server = reverb.Server([table])
    print(server.port, flush=True)
    sys.stdin.read()
    server.stop()


def insert(client, frames, rows, period):
    """Writes one episode of `rows` rows with a window beginning every `period` rows; rows a second, flush included."""
    action = np.random.default_rng(0).uniform(-1, 1, (rows, 6)).astype(np.float32)
    began = time.perf_counter()
    with client.trajectory_writer(num_keep_alive_refs=LENGTH) as writer:
        for row in range(rows):
            writer.append(
                {
                    "image": frames[row % len(frames)],
                    "action": action[row],
                    "reward": np.float32(1),
                    "discount": np.float32(1),
                    "is_first": np.bool_(row == 0),
                }
            )
            if row >= LENGTH - 1 and (row - LENGTH + 1) % period == 0:
                writer.create_item(TABLE, 1.0, {name: column[-LENGTH:] for name, column in writer.history.items()})
        writer.flush()
    return rows / (time.perf_counter() - began)


def batches(port):
    """Batches of windows, with Reverb's own defaults for what is under way."""
    dataset = reverb.TrajectoryDataset.from_table_signature(
        f"localhost:{port}", TABLE, max_in_flight_samples_per_worker=2 * BATCH_SIZE
    )
    return dataset.batch(BATCH_SIZE).prefetch(2).as_numpy_iterator()


def sample(source, count):
    """Sampled bytes a second."""
    size = 0
    began = time.perf_counter()
    for _ in range(count):
        size += sum(part.nbytes for part in next(source).data.values())
    return size / (time.perf_counter() - began)


def main():
    """`serve`, or: reads `fill ROWS`, `insert ROWS PERIOD` and `sample BATCHES`, and answers each with a figure."""
    if sys.argv[1] == "serve":
        serve(6)
        return
    frames = np.load(sys.argv[1])
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    port = int(server.stdout.readline())
    client = reverb.Client(f"localhost:{port}")
    source = None
    for line in sys.stdin:
        what, *numbers = line.split()
        if what == "fill":
            print(sum(insert(client, frames, 1000, 1) > 0 for _ in range(int(numbers[0]) // 1000)), flush=True)
        elif what == "insert":
            print(insert(client, frames, int(numbers[0]), int(numbers[1])), flush=True)
        else:
            source = source or batches(port)
            print(sample(source, int(numbers[0])), flush=True)
    server.stdin.close()
    server.wait()


main()
