"""Where the ranks of a learner find each other."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import NamedTuple

import torch.distributed as dist

LOOPBACK = "127.0.0.1"
_SIOCGIFADDR = 0x8915


class Meeting(NamedTuple):
    """An address at which a rank keeps a store for all.

    Attributes:
        host: the IP address of the first rank's node; the port is open on no other.
        port: a free one.
    """

    host: str
    port: int

    def join(self, size: int) -> dist.Store:
        """The store, seen from another rank; raises RuntimeError when nobody is there."""
        return dist.TCPStore(self.host, self.port, size, is_master=False)


def open_meeting(host: str, size: int) -> tuple[Meeting, dist.Store]:
    """Keeps the store in this process."""
    listener = socket.create_server((host, 0))
    port = listener.getsockname()[1]
    store = dist.TCPStore(host, port, size, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    return Meeting(host, port), store


def speak_from(address: str) -> None:
    """Lets gloo and NCCL use the network interface with this address, unless the environment names another."""
    interface = interface_of(address)
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)


def interface_of(address: str) -> str:
    """The name of the network interface with an IPv4 address; empty if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, request)
            except OSError:
                continue  # one without an address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""
