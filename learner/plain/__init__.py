"""The update as `algorithms.md` reads, step by step: what the fast one is held against, and measured against."""

from learner.plain.learner import PlainLearner

__all__ = ["PlainLearner"]
