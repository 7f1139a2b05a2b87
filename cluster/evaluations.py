"""Which evaluations a run wants, and what becomes of their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from actors.video import FILMED_EPISODES
from cluster.recorder import Recorder
from cluster.weights import Weights
from common.config import Config
from common.reports import EvaluationReport
from common.run_folder import RunFolder
from common.seeding import derive_seed

LATE = 2


class Evaluation(NamedTuple):
    """An evaluation that is wanted: with which weights (None: random actions), how many episodes, at which angle."""

    weights: Weights | None
    env_steps: int
    episodes: int
    rotation: float


class Evaluations:
    """A queue of wanted evaluations, one at a time, and the means that a summary tells.

    Where one takes longer than `eval_every`, others wait, each with the weights of its time: a learning curve, or a
    study that looks up scores at step counts, has no holes. People are told once.

    Attributes:
        random_return: mean return of uniformly random actions.
        first_return: of the untrained policy.
        last_return: of the newest weights that were evaluated.
    """

    def __init__(self, config: Config, folder: RunFolder, recorder: Recorder, message: Callable[[str], None]) -> None:
        self.config = config
        self.folder = folder
        self.recorder = recorder
        self.message = message
        self.wanted: deque[Evaluation] = deque()
        self.next_at = config.eval_every
        self.told_late = False
        self.random_return: float | None = None
        self.first_return: float | None = None
        self.last_return: float | None = None

    def want(self, weights: Weights | None, env_steps: int, episodes: int) -> None:
        """Asks for an evaluation at every angle."""
        for rotation in self.config.eval_rotation:
            self.wanted.append(Evaluation(weights, env_steps, episodes, rotation))

    def want_if_due(self, weights: Weights | None, env_steps: int) -> None:
        """Asks for one every `eval_every` environment steps, unless the one at the run's end is near."""
        if not self.config.eval_every or env_steps < self.next_at or weights is None or not weights.updates:
            return
        self.next_at = (env_steps // self.config.eval_every + 1) * self.config.eval_every
        if env_steps < self.config.env_steps - self.config.eval_every // 2:
            self.want(weights, env_steps, self.config.eval_episodes)
            self._tell_if_late()

    def next_call(self) -> tuple[object, ...]:
        """Arguments of `Evaluator.evaluate` for the evaluation that comes next."""
        weights, env_steps, episodes, rotation = self.wanted[0]
        version, handle = (weights.version, weights.handle) if weights is not None else (0, None)
        seed = derive_seed(self.config.seed, "evaluation", env_steps)
        return version, handle, episodes, rotation, False, seed, min(episodes, FILMED_EPISODES), True

    def done(self, report: EvaluationReport) -> None:
        """Records the evaluation that came next: evaluations.jsonl, a video, TensorBoard and a line for people."""
        if not self.wanted:
            return  # it ended just as it was given up
        weights, env_steps, episodes, rotation = self.wanted.popleft()
        mean = float(np.mean(report.returns))
        self.recorder.evaluated(rotation, mean, report)
        self.folder.append_evaluation(
            {
                "env_steps": env_steps,
                "updates": weights.updates if weights is not None else 0,
                "weights_version": report.weights_version,
                "returns": report.returns,
                "mean": mean,
                "rotation_degrees": rotation,
                "wall_seconds": self.recorder.wall_seconds,
            }
        )
        angle = f" at ±{rotation:g}°" if rotation else ""
        who = f"weights {weights.version}" if weights is not None else "random actions"
        when = f"{who}, {env_steps:,} environment steps"
        self.message(f"evaluation{angle}: mean return {mean:.1f} over {episodes} episodes ({when})")
        suffix = f"_rotation{rotation:g}" if rotation else ""
        name = f"{env_steps:09d}" if weights is not None else "random"
        if report.film is not None:
            self.folder.write_video(f"{name}{suffix}.mp4", report.film.mp4)
        if weights is not None:
            self.recorder.board.scalars({f"evaluation{suffix}": mean}, env_steps)
            if report.film is not None:
                self.recorder.board.video(f"evaluation{suffix}", report.film.gif, env_steps)
        if rotation == self.config.eval_rotation[0]:
            self._remember(weights, mean)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "next_at": self._next_if_abandoned(),
            "random_return": self.random_return,
            "first_return": self.first_return,
            "last_return": self.last_return,
        }

    def want_first(self, untrained: Weights | None, env_steps: int) -> None:
        """Asks for what a run's beginning tells, where it is not known: random actions, and the untrained policy."""
        if self.random_return is None:
            self.want(None, env_steps, self.config.final_eval_episodes)
        if self.first_return is None and untrained is not None and untrained.updates == 0:
            self.want(untrained, env_steps, self.config.final_eval_episodes)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        self.next_at = state["next_at"]
        self.random_return, self.first_return = state["random_return"], state["first_return"]
        self.last_return = state["last_return"]

    def abandon(self) -> None:
        """Gives up what is wanted; a resumed run asks for it again, with the weights of then."""
        self.next_at = self._next_if_abandoned()
        self.wanted.clear()

    def _next_if_abandoned(self) -> int:
        """When the next one is due if nothing that is wanted now comes to pass."""
        return min([self.next_at, *self._periodic()])

    def _periodic(self) -> list[int]:
        """The environment steps of those that are wanted of weights that have learnt, each angle's."""
        return [wanted.env_steps for wanted in self.wanted if wanted.weights is not None and wanted.weights.updates]

    def _tell_if_late(self) -> None:
        waiting = len(set(self._periodic()) - {self.wanted[0].env_steps})  # the first may be under way
        if waiting < LATE or len(self._periodic()) < len(self.wanted) or self.told_late:
            return
        self.told_late = True
        self.message(
            f"evaluations take longer than --eval-every {self.config.eval_every:,}: {waiting} are waiting, and the run "
            "ends once all are done (fewer --eval-episodes or a larger --eval-every help)"
        )

    def _remember(self, weights: Weights | None, mean: float) -> None:
        if weights is None:
            self.random_return = mean
            return
        self.last_return = mean
        if weights.updates == 0:
            self.first_return = mean
