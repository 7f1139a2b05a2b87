"""Many EGL processes drawing at once: some drivers hang in the first render. Run it under a timeout."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time


def draw(frames: int) -> tuple[str, float]:
    """Draws frames; OpenGL's name for what drew them, and how many a second."""
    from actors.environment import make_environment
    from common.config import EnvironmentConfig

    environment = make_environment("walker_walk", EnvironmentConfig(gl="egl"), seed=0)
    environment.reset()
    began = time.perf_counter()
    for _ in range(frames):
        environment.step([0.0] * 6)
    rate = frames / (time.perf_counter() - began)
    renderer = environment.renderer()
    environment.close()
    return renderer, rate


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--frames", type=int, default=490)
    arguments = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        results = pool.map(draw, [arguments.frames] * arguments.processes)
    print(json.dumps({"renderer": results[0][0], "frames_per_second": [rate for _, rate in results]}))


if __name__ == "__main__":
    main()
