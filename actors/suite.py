"""DMControl's suite as a source of steps and pictures."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Literal

import dm_env
import numpy as np
from dm_env import specs
from numpy.typing import NDArray

from actors.tasks import split_task
from common.sequence import IMAGE_SHAPE


class SuiteSource:
    """One DMControl task, unwrapped: native actions, single control steps, a picture when asked for one.

    With `full` rendering the picture is `physics.render(64, 64, camera_id)` bit for bit, without a new scene for every
    frame and without a 640×480 framebuffer. The camera is 2 for the quadruped and 0 otherwise, as in Dreamer.

    Importing DMControl opens OpenGL, so it happens here, after `actors.rendering.configure`.

    Raises:
        UserError: there is no such task.
    """

    def __init__(self, task: str, rendering: Literal["full", "fast"], seed: int) -> None:
        import mujoco
        from dm_control import suite
        from dm_control.mujoco import Camera

        domain, name = split_task(task, suite.ALL_TASKS)
        random = np.random.RandomState(np.random.MT19937(seed))
        with _without_deprecation_notes():
            self._environment = suite.load(domain, name, task_kwargs={"random": random})
        self._physics = self._environment.physics
        height, width, _ = IMAGE_SHAPE
        visual = self._physics.model.vis
        visual.global_.offheight, visual.global_.offwidth = height, width
        if rendering == "fast":
            visual.quality.offsamples = 0
            visual.quality.shadowsize = 0
        self._camera = Camera(self._physics, height, width, 2 if domain == "quadruped" else 0)
        if rendering == "fast":
            self._camera.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._camera.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._closed = False

    def action_spec(self) -> specs.BoundedArray:
        """The task's own action bounds."""
        return self._environment.action_spec()

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        return self._environment.reset()

    def step(self, action: NDArray[np.float64]) -> dm_env.TimeStep:
        """One control step."""
        return self._environment.step(action)

    def image(self) -> NDArray[np.uint8]:
        """A picture of the present state, (64, 64, 3); the array is the caller's."""
        return self._camera.render().copy()

    def renderer(self) -> str:
        """OpenGL's own name for what draws, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)` or a GPU's name."""
        from OpenGL import GL

        with self._physics.contexts.gl.make_current() as context:
            return context.call(GL.glGetString, GL.GL_RENDERER).decode()

    def close(self) -> None:
        """Frees the simulation and its OpenGL context, which interpreter exit would do in the wrong order."""
        if not self._closed:
            self._closed = True
            self._camera.scene.free()
            self._physics.free()


@contextlib.contextmanager
def _without_deprecation_notes() -> Iterator[None]:
    # MuJoCo comments on attributes in DMControl's own model files, once for every environment of every actor.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
