"""The files in deploy/ that Prometheus and Grafana are set up with."""

from __future__ import annotations

from pathlib import Path

_DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = _DEPLOY / "prometheus"
DASHBOARDS = _DEPLOY / "grafana" / "dashboards"
