"""The wire and storage form of a chunk: a fixed prefix, a msgpack header, then the arrays.

```
prefix    magic "DFC2" · header length · XXH3-64 of the header · XXH3-64 of the payload: 24 bytes, little-endian
header    msgpack {version, key, is_last, rows T, action_size A, packed}, then zeros
payload   image (T, 64, 64, 3) · action (T, A) · reward (T) · discount (T) · is_first (T)
```

The payload and each of its blocks start at a multiple of 64 bytes; what lies between them is zero. The images lie as
they are in memory, or, where `packed` is not 0, as an LZ4 block of that many bytes: rendered frames shrink 2–6 times.

The payload's layout follows from (T, A, packed) alone: who remembers where it starts never parses the header again.

Bytes may come from anybody. A header has at most 512 of them; what it says is held against the size of the whole before
memory is made for images; and decoding makes no more than `DECODED_BYTES` (48 MiB), nor than 256 times the bytes given.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import cramjam
import msgpack
import numpy as np
import xxhash
from numpy.typing import NDArray

from common.errors import UserError
from common.sequence import IMAGE_SHAPE, ROW_FIELDS, Chunk, ChunkKey, Rows

BytesLike = bytes | bytearray | memoryview | NDArray[np.uint8]

VERSION = 2
MAX_ROWS = 4_096
MAX_ACTION_SIZE = 4_096

_MAGIC = b"DFC2"
_PREFIX = struct.Struct("<4sIQQ")
_MAX_HEADER = 512
_MAX_KEY = 2**63
_ALIGNMENT = 64
_IMAGE_BYTES = math.prod(IMAGE_SHAPE)
DECODED_BYTES = MAX_ROWS * _IMAGE_BYTES
_DTYPES = (np.uint8, np.float32, np.float32, np.float32, np.bool_)
_HEADER_FIELDS = {"version", "key", "is_last", "rows", "action_size", "packed"}
_LARGEST_RATIO = 255  # LZ4 expands no byte to more
_SMALLEST_BLOCK = 64


class CodecError(UserError, ValueError):
    """These bytes, or this chunk, are not a chunk as the codec defines it."""


class Layout(NamedTuple):
    """Where a chunk's arrays lie in its bytes.

    Attributes:
        offset: where the payload starts, in bytes.
        rows: T.
        packed: bytes of the images' LZ4 block, 0 where they lie as they are.
    """

    offset: int
    rows: int
    packed: int


@dataclass(frozen=True)
class Header:
    """What a chunk says about itself.

    Attributes:
        key: its name.
        is_last: whether the episode ended with this chunk.
        action_size: A.
        checksum: XXH3-64 of the payload.
        layout: where its arrays lie.
    """

    key: ChunkKey
    is_last: bool
    action_size: int
    checksum: int
    layout: Layout

    @property
    def rows(self) -> int:
        """Rows T of the chunk."""
        return self.layout.rows

    def env_steps(self, action_repeat: int) -> int:
        """Environment steps in the chunk: action repeat × rows that are no reset row."""
        return action_repeat * (self.rows - (self.key.index == 0))


def encode(chunk: Chunk, *, pack: bool = False) -> NDArray[np.uint8]:
    """The chunk as bytes: one array, which Ray moves without copying and every store accepts.

    Args:
        chunk: what to encode.
        pack: whether to compress the images (about 0.7 GB/s).

    Raises:
        CodecError: shapes or types are not those of `common.sequence.Rows`, or `is_first` is not true exactly on the
            first row of an episode's first chunk.
    """
    rows, action_size = _checked_shapes(chunk.rows)
    _check_is_first(chunk.key, chunk.rows.is_first)
    block = pack_images(chunk.rows.image) if pack else None
    packed = 0 if block is None else len(block)
    header = msgpack.packb(
        {
            "version": VERSION,
            "key": [int(part) for part in chunk.key],
            "is_last": bool(chunk.is_last),
            "rows": rows,
            "action_size": action_size,
            "packed": packed,
        }
    )
    layout = Layout(_aligned(_PREFIX.size + len(header)), rows, packed)
    data = np.zeros(layout.offset + _payload_bytes(layout, action_size), np.uint8)
    image, *others = views(data, layout, action_size)
    image[...] = chunk.rows.image if block is None else block
    for target, name in zip(others, ROW_FIELDS[1:], strict=True):
        target[...] = getattr(chunk.rows, name)
    front = _PREFIX.pack(_MAGIC, len(header), checksum(header), checksum(data[layout.offset :])) + header
    data[: len(front)] = np.frombuffer(front, np.uint8)
    return data


def decode(buffer: BytesLike, *, verify: bool = True) -> Chunk:
    """The chunk in these bytes; its arrays are views of `buffer`, compressed images apart: it lives as long as they do.

    Args:
        buffer: what `encode` returned, and not a byte more.
        verify: whether to compare the payload's checksum (tens of GB/s).

    Raises:
        CodecError: the bytes are damaged, cut, too long, or of another version.
    """
    header = check(buffer) if verify else read_header(buffer)
    image, *others = views(buffer, header.layout, header.action_size)
    if header.layout.packed:
        block, image = image, np.empty((header.rows, *IMAGE_SHAPE), np.uint8)
        unpack_images(block, image)
    return Chunk(header.key, Rows(image, *others), header.is_last)


def check(buffer: BytesLike) -> Header:
    """Reads the header and holds the payload against it; compressed images are not unpacked.

    Raises:
        CodecError: the bytes are damaged, cut, too long, or of another version.
    """
    header = read_header(buffer)
    if checksum(as_memoryview(buffer)[header.layout.offset :]) != header.checksum:
        raise CodecError(f"chunk {tuple(header.key)} is damaged: its checksum does not match")
    is_first = views(buffer, header.layout, header.action_size)[-1]
    if is_first.view(np.uint8).max() > 1:
        raise CodecError("is_first holds something other than true and false")
    _check_is_first(header.key, is_first)
    return header


def pack_images(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (T, 64, 64, 3) as one LZ4 block, uint8 (packed,)."""
    block = cramjam.lz4.compress_block(np.ascontiguousarray(image).reshape(-1).data, store_size=False)
    return np.frombuffer(block, np.uint8)  # type: ignore[call-overload]  # cramjam's buffers are buffers


def unpack_images(block: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """The images (T, 64, 64, 3) of an LZ4 block, written to `out`.

    Raises:
        CodecError: the block is damaged, or holds another number of images.
    """
    try:
        written = cramjam.lz4.decompress_block_into(block.data, out.reshape(-1).data)
    except (cramjam.DecompressionError, ValueError, OverflowError) as error:
        raise CodecError("a chunk's compressed images are damaged") from error
    if written != out.nbytes:
        raise CodecError(f"a chunk's compressed images are damaged: {written} bytes, not {out.nbytes}")


def read_header(buffer: BytesLike) -> Header:
    """Parses the header alone and checks it against the buffer's length, without touching the payload.

    Raises:
        CodecError: the header is damaged or of another version, or the buffer's length is not what it says.
    """
    view = as_memoryview(buffer)
    return read_front(view, len(view))


def read_front(front: BytesLike, size: int) -> Header:
    """As `read_header`, of an encoding of `size` bytes of which only the front is at hand (`front_of` cuts it off)."""
    view = as_memoryview(front)
    end = _header_end(view)
    _, length, header_checksum, payload_checksum = _PREFIX.unpack_from(view)
    message = bytes(view[_PREFIX.size : end])
    if len(message) != length or checksum(message) != header_checksum:
        raise CodecError("the chunk's header is cut or damaged")
    header = _parsed(message, payload_checksum, offset=_aligned(end))
    expected = header.layout.offset + _payload_bytes(header.layout, header.action_size)
    if size != expected:
        raise CodecError(f"the chunk has {size} bytes, its header says {expected}")
    return header


def front_of(buffer: BytesLike) -> bytes:
    """Prefix and header of an encoding: all that `read_front` needs, at most 536 bytes."""
    view = as_memoryview(buffer)
    return bytes(view[: _header_end(view)])


def views(buffer: BytesLike, layout: Layout, action_size: int) -> list[NDArray[Any]]:
    """The arrays of `common.sequence.Rows`, leading shape (T,), as views: nothing is copied, no checksum compared.

    Compressed images come as they are, uint8 (packed,).

    Raises:
        CodecError: there are fewer bytes than that.
    """
    if len(buffer) < layout.offset + _payload_bytes(layout, action_size):
        raise CodecError(f"a chunk of {layout.rows} rows does not fit into {len(buffer)} bytes")
    rows, packed = layout.rows, layout.packed
    image = (packed,) if packed else (rows, *IMAGE_SHAPE)
    shapes = (image, (rows, action_size), (rows,), (rows,), (rows,))
    return [
        np.ndarray(shape, dtype, buffer, layout.offset + start)
        for shape, dtype, start in zip(shapes, _DTYPES, _block_starts(layout, action_size), strict=False)
    ]


def checksum(data: BytesLike) -> int:
    """XXH3-64: finds damage at memory's own speed; no defence against forgers."""
    return xxhash.xxh3_64_intdigest(as_memoryview(data))


def as_memoryview(buffer: BytesLike) -> memoryview:
    """The same bytes, for interfaces that take no arrays."""
    return buffer.data if isinstance(buffer, np.ndarray) else memoryview(buffer)


def _header_end(view: memoryview) -> int:
    """Where the header ends, by the prefix."""
    if len(view) < _PREFIX.size:
        raise CodecError(f"{len(view)} bytes are too few for a chunk")
    magic, length, _, _ = _PREFIX.unpack_from(view)
    if magic != _MAGIC:
        raise CodecError("not a chunk: it does not start with the chunk mark")
    if length > _MAX_HEADER:
        raise CodecError(f"a header of {length} bytes is longer than the allowed {_MAX_HEADER}")
    return _PREFIX.size + int(length)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _block_starts(layout: Layout, action_size: int) -> tuple[int, int, int, int, int, int]:
    """Where each block starts within the payload, and where the payload ends."""
    rows = layout.rows
    action = _aligned(layout.packed or rows * _IMAGE_BYTES)
    reward = action + _aligned(rows * action_size * 4)
    scalar = _aligned(rows * 4)
    discount = reward + scalar
    is_first = discount + scalar
    return 0, action, reward, discount, is_first, is_first + rows


def _payload_bytes(layout: Layout, action_size: int) -> int:
    return _block_starts(layout, action_size)[-1]


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


def _parsed(message: bytes, payload_checksum: int, offset: int) -> Header:
    try:
        fields: Any = msgpack.unpackb(message)
    except (ValueError, TypeError) as error:
        raise CodecError("the chunk's header is no msgpack") from error
    if not isinstance(fields, dict) or fields.keys() != _HEADER_FIELDS:
        raise CodecError("the chunk's header does not hold the fields of a chunk")
    if not _within(fields["version"], VERSION, VERSION + 1):
        raise CodecError(f"chunk version {fields['version']} is not {VERSION}, the only one this program reads")
    key = fields["key"]
    if not isinstance(key, list) or len(key) != len(ChunkKey._fields) or not all(_within(k, 0, _MAX_KEY) for k in key):
        raise CodecError("the chunk's key is not five numbers of 0 or more")
    rows, packed = fields["rows"], fields["packed"]
    if not (_within(rows, 1, MAX_ROWS + 1) and _within(fields["action_size"], 1, MAX_ACTION_SIZE + 1)):
        raise CodecError(f"{rows!r} rows with actions of size {fields['action_size']!r} are out of bounds")
    if not _within(packed, 0, 2**32) or (packed and not _fits(packed, rows * _IMAGE_BYTES)):
        raise CodecError(f"an LZ4 block of {packed!r} bytes cannot hold {rows} images")
    if not isinstance(fields["is_last"], bool):
        raise CodecError("the chunk's is_last is neither true nor false")
    return Header(
        ChunkKey(*key), fields["is_last"], fields["action_size"], payload_checksum, Layout(offset, rows, packed)
    )


def _fits(packed: int, size: int) -> bool:
    """Whether an LZ4 block of `packed` bytes can hold `size` bytes: LZ4 has a best and a worst case."""
    return size <= _LARGEST_RATIO * packed + _SMALLEST_BLOCK and packed <= size + size // 255 + 16


def _within(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value < high
