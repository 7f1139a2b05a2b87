"""Prometheus beside the runs, and pictures of what it has seen."""
