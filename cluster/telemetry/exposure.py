"""Shows a run's numbers to Prometheus while it goes on, and says in the run folder where they are."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.telemetry.server import MetricsServer
from cluster.telemetry.telemetry import Telemetry
from common.config import Config
from common.run_folder import RunFolder

ANY_ADDRESS = ("0.0.0.0", "::")


@contextmanager
def exposed(config: Config, folder: RunFolder, telemetry: Telemetry) -> Iterator[str]:
    """Serves /metrics inside the block; gives its URL, or an empty one where the configuration wants none.

    The run folder's metrics_target.json names the address in the form of Prometheus' file service discovery. It goes
    when the run ends as it should: one that is still there and answers nobody belongs to a run that died. Prometheus
    asks for the run by its folder, because a dead run's port may be another's by now.

    Raises:
        UserError: the address is none of this machine's, or no port is free.
    """
    if not config.metrics_port:
        yield ""
        return
    with MetricsServer(config.metrics_host, config.metrics_port, telemetry) as server:
        host = socket.gethostname() if config.metrics_host in ANY_ADDRESS else config.metrics_host
        address = f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"
        path = folder.path.resolve()
        labels = {"run": path.name, "instance": str(path), "__param_run": str(path)}
        folder.write_metrics_target({"targets": [address], "labels": labels})
        try:
            yield f"http://{address}/metrics"
        except KeyboardInterrupt:
            folder.remove_metrics_target()
            raise
        except FloatingPointError:
            server.linger()  # or nobody would read that the run diverged
            raise
        folder.remove_metrics_target()
