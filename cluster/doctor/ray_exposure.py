"""Who may command Ray here: its token, and the ports it listens on.

A Ray port that answers without a token lets anyone who reaches it run any program, and Ray's own ports listen on every
interface, even where the node address is the loopback one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cluster.doctor.finding import Finding

_LISTENING = "0A"
_EVERY_INTERFACE = {"00000000", "0" * 32}
_RAY_PROCESSES = ("raylet", "gcs_server", "ray")


def authentication() -> Finding:
    """Ray's authentication mode and where its token lies; the token itself is never read."""
    if token_required(os.environ):
        return Finding("Ray token", "ok", f"required; {_token_place(os.environ)}")
    return Finding(
        "Ray token",
        "warn",
        f"not required: RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']}",
        "unset RAY_AUTH_MODE: without a token whoever reaches Ray's ports can run any program here",
    )


def ports(proc: Path = Path("/proc")) -> Finding:
    """The ports on which a running Ray listens on every interface.

    Args:
        proc: the process file system.
    """
    listening = sorted(_listening_ports(proc))
    if listening:
        detail = f"a running Ray listens on every interface: {', '.join(map(str, listening))}"
        advice = "keep them behind a firewall: the token is their only lock"
    else:
        detail, advice = "no Ray is running; one that does listens on every interface", ""
    if token_required(os.environ):
        return Finding("Ray ports", "ok", detail, advice)
    return Finding("Ray ports", "warn", detail, "nothing locks them: unset RAY_AUTH_MODE")


def token_required(environment: Mapping[str, str]) -> bool:
    """Whether a Ray started under these environment variables wants a token; Ray 2.60 does unless told not to."""
    return environment.get("RAY_AUTH_MODE", "token").lower() != "disabled"


def _token_place(environment: Mapping[str, str]) -> str:
    """Where Ray looks for the token, in its own order."""
    if "RAY_AUTH_TOKEN" in environment:
        return "the token is in RAY_AUTH_TOKEN"
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if path.exists():
        return f"the token is in {path}, and every node of a cluster needs the same one"
    return (
        f"the first run makes one in {path}, which a later `ray start --head` then requires on every node; one before "
        "that asks nobody for any: make it with `ray get-auth-token --generate`"
    )


def _listening_ports(proc: Path) -> set[int]:
    """TCP ports that Ray's processes hold open towards every interface."""
    sockets: dict[str, int] = {}
    for table in ("tcp", "tcp6"):
        path = proc / "net" / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            _, local, _, state, *rest = line.split()
            address, _, port = local.partition(":")
            if state == _LISTENING and address in _EVERY_INTERFACE:
                sockets[f"socket:[{rest[5]}]"] = int(port, 16)
    return {sockets[link] for link in _ray_sockets(proc) if link in sockets}


def _ray_sockets(proc: Path) -> set[str]:
    links = set()
    for process in proc.glob("[0-9]*"):
        # Processes end while they are looked at, and those of other users do not show what they hold.
        try:
            if (process / "comm").read_text().startswith(_RAY_PROCESSES):
                links |= {os.readlink(descriptor) for descriptor in (process / "fd").iterdir()}
        except OSError:
            continue
    return links
