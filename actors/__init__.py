"""Actors: environments, the collector that streams their chunks, evaluation and video."""
