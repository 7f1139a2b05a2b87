"""Who draws the environments' pictures."""

from __future__ import annotations

from actors.rendering import PROBE_TASK, probe
from cluster.doctor.finding import Finding
from common.config import EnvironmentConfig
from common.errors import UserError


def opengl() -> Finding:
    """Draws a frame in a process of its own and names the renderer that did it."""
    try:
        report = probe(PROBE_TASK, EnvironmentConfig())
    except UserError as error:
        return Finding("OpenGL", "missing", str(error), "apt-get install libegl1 libosmesa6, then run this again")
    renderer, kind = report.renderer or "a renderer without a name", "hardware" if report.hardware else "software"
    detail = f"{report.gl}: {renderer} ({kind}), first frame in {report.seconds:.1f} s"
    if report.hardware:
        return Finding("OpenGL", "ok", detail)
    slow = (
        "a 64×64 frame takes 12–37 ms of one core instead of under 1 ms; --environment.rendering fast draws several "
        "times faster"
    )
    return Finding("OpenGL", "warn", detail, report.warning or slow)
