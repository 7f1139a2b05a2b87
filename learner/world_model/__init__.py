"""The world model: how images, actions and rewards become states that can be dreamt on."""

from learner.world_model.model import WorldModel

__all__ = ["WorldModel"]
