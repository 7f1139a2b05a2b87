"""The wire and storage form of a chunk: a fixed prefix, a msgpack header, then the arrays as they lie in memory.

```
prefix    magic "DFC1" · header length · CRC-32 of the header · CRC-32 of the payload: 16 bytes, little-endian
header    msgpack {version, key, is_last, rows T, action_size A}, then zeros
payload   image (T, 64, 64, 3) · action (T, A) · reward (T) · discount (T) · is_first (T)
```

The payload and each of its blocks start at a multiple of 64 bytes; what lies between them is zero.

The payload's layout follows from (T, A) alone: who remembers where it starts never parses the header again.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from common.sequence import IMAGE_SHAPE, ROW_FIELDS, Chunk, ChunkKey, Rows

BytesLike = bytes | bytearray | memoryview | NDArray[np.uint8]

VERSION = 1
MAX_ROWS = 65_536
MAX_ACTION_SIZE = 4_096

_MAGIC = b"DFC1"
_PREFIX = struct.Struct("<4sIII")
_MAX_HEADER = 512
_MAX_KEY = 2**63
_ALIGNMENT = 64
_IMAGE_BYTES = math.prod(IMAGE_SHAPE)
_DTYPES = (np.uint8, np.float32, np.float32, np.float32, np.bool_)
_HEADER_FIELDS = {"version", "key", "is_last", "rows", "action_size"}


class CodecError(ValueError):
    """These bytes, or this chunk, are not a chunk as the codec defines it."""


@dataclass(frozen=True)
class Header:
    """What a chunk says about itself.

    Attributes:
        key: its name.
        is_last: whether the episode ended with this chunk.
        rows: T.
        action_size: A.
        crc: CRC-32 of the payload.
        offset: where the payload starts, in bytes.
    """

    key: ChunkKey
    is_last: bool
    rows: int
    action_size: int
    crc: int
    offset: int

    def env_steps(self, action_repeat: int) -> int:
        """Environment steps in the chunk: action repeat × rows that are no reset row."""
        return action_repeat * (self.rows - (self.key.index == 0))


def encode(chunk: Chunk) -> NDArray[np.uint8]:
    """The chunk as bytes: one array, which Ray moves without copying and every store accepts.

    Raises:
        CodecError: shapes or types are not those of `common.sequence.Rows`, or `is_first` is not true exactly on the
            first row of an episode's first chunk.
    """
    rows, action_size = _checked_shapes(chunk.rows)
    _check_is_first(chunk.key, chunk.rows.is_first)
    header = msgpack.packb(
        {
            "version": VERSION,
            "key": [int(part) for part in chunk.key],
            "is_last": bool(chunk.is_last),
            "rows": rows,
            "action_size": action_size,
        }
    )
    offset = _aligned(_PREFIX.size + len(header))
    data = np.zeros(offset + _payload_bytes(rows, action_size), np.uint8)
    target = views(data, offset, rows, action_size)
    for name in ROW_FIELDS:
        getattr(target, name)[...] = getattr(chunk.rows, name)
    front = _PREFIX.pack(_MAGIC, len(header), zlib.crc32(header), zlib.crc32(data.data[offset:])) + header
    data[: len(front)] = np.frombuffer(front, np.uint8)
    return data


def decode(buffer: BytesLike, *, verify: bool = True) -> Chunk:
    """The chunk in these bytes; its arrays are views of `buffer`, so it lives as long as they do.

    Args:
        buffer: what `encode` returned, and not a byte more.
        verify: whether to compare the payload's checksum (about 4 GB/s).

    Raises:
        CodecError: the bytes are damaged, cut, too long, or of another version.
    """
    header = read_header(buffer)
    rows = views(buffer, header.offset, header.rows, header.action_size)
    if verify:
        if zlib.crc32(as_memoryview(buffer)[header.offset :]) != header.crc:
            raise CodecError(f"chunk {tuple(header.key)} is damaged: its checksum does not match")
        if rows.is_first.view(np.uint8).max() > 1:
            raise CodecError("is_first holds something other than true and false")
        _check_is_first(header.key, rows.is_first)
    return Chunk(header.key, rows, header.is_last)


def read_header(buffer: BytesLike) -> Header:
    """Parses the header alone and checks it against the buffer's length, without touching the payload.

    Raises:
        CodecError: the header is damaged or of another version, or the buffer's length is not what it says.
    """
    view = as_memoryview(buffer)
    if len(view) < _PREFIX.size:
        raise CodecError(f"{len(view)} bytes are too few for a chunk")
    magic, length, header_crc, payload_crc = _PREFIX.unpack_from(view)
    if magic != _MAGIC:
        raise CodecError("not a chunk: it does not start with the chunk mark")
    if length > _MAX_HEADER:
        raise CodecError(f"a header of {length} bytes is longer than the allowed {_MAX_HEADER}")
    end = _PREFIX.size + length
    packed = bytes(view[_PREFIX.size : end])
    if len(packed) != length or zlib.crc32(packed) != header_crc:
        raise CodecError("the chunk's header is cut or damaged")
    header = _parsed(packed, payload_crc, offset=_aligned(end))
    expected = header.offset + _payload_bytes(header.rows, header.action_size)
    if len(view) != expected:
        raise CodecError(f"the chunk has {len(view)} bytes, its header says {expected}")
    return header


def views(buffer: BytesLike, offset: int, rows: int, action_size: int) -> Rows:
    """The payload that starts at `offset` as arrays of leading shape (T,): views, nothing is copied or checked."""
    shapes = ((rows, *IMAGE_SHAPE), (rows, action_size), (rows,), (rows,), (rows,))
    arrays = [
        np.ndarray(shape, dtype, buffer, offset + start)
        for shape, dtype, start in zip(shapes, _DTYPES, _block_starts(rows, action_size), strict=False)
    ]
    return Rows(*arrays)


def as_memoryview(buffer: BytesLike) -> memoryview:
    """The same bytes, for interfaces that take no arrays."""
    return buffer.data if isinstance(buffer, np.ndarray) else memoryview(buffer)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _block_starts(rows: int, action_size: int) -> tuple[int, int, int, int, int, int]:
    """Where each block starts within the payload, and where the payload ends."""
    action = rows * _IMAGE_BYTES
    reward = action + _aligned(rows * action_size * 4)
    scalar = _aligned(rows * 4)
    discount = reward + scalar
    is_first = discount + scalar
    return 0, action, reward, discount, is_first, is_first + rows


def _payload_bytes(rows: int, action_size: int) -> int:
    return _block_starts(rows, action_size)[-1]


def _checked_shapes(rows: Rows) -> tuple[int, int]:
    """(T, A) of rows that can be encoded."""
    count, action_size = rows.action.shape if rows.action.ndim == 2 else (0, 0)
    if not (1 <= count <= MAX_ROWS and 1 <= action_size <= MAX_ACTION_SIZE):
        raise CodecError(f"actions of shape {rows.action.shape} are not (T, A) with T, A at least 1 and in bounds")
    shapes = ((count, *IMAGE_SHAPE), (count, action_size), (count,), (count,), (count,))
    for name, shape, dtype in zip(ROW_FIELDS, shapes, _DTYPES, strict=True):
        array = getattr(rows, name)
        if array.shape != shape or array.dtype != dtype:
            raise CodecError(f"{name} is {array.dtype} {array.shape}, a chunk needs {np.dtype(dtype)} {shape}")
    return count, action_size


def _check_is_first(key: ChunkKey, is_first: NDArray[np.bool_]) -> None:
    """A reset row anywhere else would put two episodes into one window."""
    if is_first[0] != (key.index == 0) or is_first[1:].any():
        raise CodecError(
            f"chunk {tuple(key)}: is_first must be true on row 0 of an episode's chunk 0, and nowhere else"
        )


def _parsed(packed: bytes, crc: int, offset: int) -> Header:
    try:
        fields: Any = msgpack.unpackb(packed)
    except (ValueError, TypeError) as error:
        raise CodecError("the chunk's header is no msgpack") from error
    if not isinstance(fields, dict) or fields.keys() != _HEADER_FIELDS:
        raise CodecError("the chunk's header does not hold the fields of a chunk")
    if fields["version"] != VERSION:
        raise CodecError(f"chunk version {fields['version']} is not {VERSION}, the only one this program reads")
    key = fields["key"]
    if not isinstance(key, list) or len(key) != len(ChunkKey._fields) or not all(_within(k, 0, _MAX_KEY) for k in key):
        raise CodecError("the chunk's key is not five numbers of 0 or more")
    if not (_within(fields["rows"], 1, MAX_ROWS + 1) and _within(fields["action_size"], 1, MAX_ACTION_SIZE + 1)):
        raise CodecError(f"{fields['rows']!r} rows with actions of size {fields['action_size']!r} are out of bounds")
    if not isinstance(fields["is_last"], bool):
        raise CodecError("the chunk's is_last is neither true nor false")
    return Header(ChunkKey(*key), fields["is_last"], fields["rows"], fields["action_size"], crc, offset)


def _within(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value < high
