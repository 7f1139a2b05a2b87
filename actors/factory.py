"""Any dm_env environment with 64×64 images, named `package.module:factory`, as a source of steps and pictures."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import dm_env
import numpy as np
from dm_env import specs
from numpy.typing import NDArray

from common.errors import UserError
from common.sequence import IMAGE_SHAPE


def load_factory(task: str) -> Callable[..., Any]:
    """The callable that `package.module:factory` names; modules of the current directory are found too.

    Raises:
        UserError: the module cannot be imported, or the name in it is no callable.
    """
    module_name, _, name = task.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's own code: whatever it raises is theirs to mend
        raise UserError(f"task {task!r}: cannot import {module_name!r}: {type(error).__name__}: {error}") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise UserError(f"task {task!r}: {module_name!r} has no callable {name!r}")
    return factory


class FactorySource:
    """An environment built by `factory(seed=...)`, or `factory()` where it takes no seed.

    Its observation is the image itself or a dict with the image under `image` or `pixels`; uint8 (64, 64, 3). Its
    action is one-dimensional and continuous. Camera, rendering and OpenGL backend are its own business.

    Raises:
        UserError: the factory, its action or its image is not like that (images are checked as they come).
    """

    def __init__(self, task: str, seed: int) -> None:
        self._task = task
        factory = load_factory(task)
        parameters = inspect.signature(factory).parameters
        takes_seed = "seed" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        # NumPy's legacy generators, which most environments use, take 32 bits.
        self._environment = factory(seed=seed % 2**32) if takes_seed else factory()
        if not isinstance(self._environment, dm_env.Environment):
            raise UserError(
                f"task {task!r}: the factory returned {type(self._environment).__name__}, no dm_env.Environment"
            )
        spec = self._environment.action_spec()
        if not isinstance(spec, specs.Array) or len(spec.shape) != 1 or not np.issubdtype(spec.dtype, np.floating):
            raise UserError(f"task {task!r}: actions must be one row of floats, not {spec!r}")
        self._action_spec = spec
        self._observation: Any = None

    def action_spec(self) -> specs.Array:
        """The environment's own action bounds."""
        return self._action_spec

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        return self._remember(self._environment.reset())

    def step(self, action: NDArray[np.float64]) -> dm_env.TimeStep:
        """One control step."""
        return self._remember(self._environment.step(action.astype(self._action_spec.dtype)))

    def image(self) -> NDArray[np.uint8]:
        """The latest observation's image, (64, 64, 3), copied."""
        image = self._observation
        if isinstance(image, dict):
            image = image.get("image", image.get("pixels"))
        if not isinstance(image, np.ndarray) or image.shape != IMAGE_SHAPE or image.dtype != np.uint8:
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(f"task {self._task!r}: images must be uint8 {IMAGE_SHAPE}, not {found}")
        return image.copy()

    def renderer(self) -> str:
        """Empty: how it draws is not known."""
        return ""

    def close(self) -> None:
        """Closes the environment."""
        self._environment.close()

    def _remember(self, time_step: dm_env.TimeStep) -> dm_env.TimeStep:
        self._observation = time_step.observation
        return time_step
