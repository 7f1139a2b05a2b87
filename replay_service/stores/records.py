"""The small values that stores keep beside their chunks: how they are written, and that nothing else is read."""

from __future__ import annotations

import struct
from typing import Any

import msgpack

from common.sequence import IMAGE_SHAPE, StreamKey
from replay_service.codec import VERSION, checksum
from replay_service.stores.interface import Mark

_STREAM = struct.Struct(">QQQ")
_MARK = struct.Struct(">QQ")
_COUNT = struct.Struct(">Q")
_SEAL = struct.Struct(">Q")


class RecordError(ValueError):
    """These bytes are no such record."""


def pack_layout(action_size: int) -> bytes:
    """What all chunks of a store have in common."""
    packed: bytes = msgpack.packb({"version": VERSION, "image": list(IMAGE_SHAPE), "action_size": action_size})
    return packed


def unpack_layout(packed: bytes) -> dict[str, Any]:
    """What `pack_layout` wrote, in this version or another; `action_size` is a number.

    Raises:
        RecordError: it is no layout.
    """
    try:
        layout = msgpack.unpackb(packed)
    except (ValueError, TypeError) as error:
        raise RecordError("its layout is no msgpack") from error
    if not isinstance(layout, dict) or type(layout.get("action_size")) is not int:
        raise RecordError("its layout names no size of actions")
    return layout


def pack_stream(stream: StreamKey) -> bytes:
    """A stream's name."""
    return _STREAM.pack(*stream)


def pack_mark(mark: Mark) -> bytes:
    """The episode and index of a stream's last chunk."""
    return _MARK.pack(*mark)


def unpack_mark(stream: bytes, mark: bytes) -> tuple[StreamKey, Mark]:
    """What `pack_stream` and `pack_mark` wrote.

    Raises:
        RecordError: it is no stream or no mark.
    """
    try:
        episode, index = _MARK.unpack(mark)
        return StreamKey(*_STREAM.unpack(stream)), (episode, index)
    except struct.error as error:
        raise RecordError(f"its mark of a stream has {len(stream)} and {len(mark)} bytes") from error


def pack_count(count: int) -> bytes:
    """A number of environment steps."""
    return _COUNT.pack(count)


def unpack_count(packed: bytes) -> int:
    """What `pack_count` wrote.

    Raises:
        RecordError: it is no count.
    """
    if len(packed) != _COUNT.size:
        raise RecordError(f"its count of environment steps has {len(packed)} bytes")
    (count,) = _COUNT.unpack(packed)
    return int(count)


def seal(value: bytes) -> bytes:
    """A value with its checksum before it, for stores that have none of their own."""
    return _SEAL.pack(checksum(value)) + value


def unseal(name: str, sealed: bytes) -> bytes:
    """What `seal` was given.

    Raises:
        RecordError: it differs; the error calls it by this name.
    """
    value = sealed[_SEAL.size :]
    if sealed[: _SEAL.size] != _SEAL.pack(checksum(value)):
        raise RecordError(f"{name} differs from its checksum")
    return value
