"""Bytes that are nearly chunks, or not at all, against the decoder.

    python -m tests.replay_service.fuzz_codec --count 1000000 --seed 0

Each of them must be refused with a CodecError or be a valid chunk: one that encodes, and decodes to itself. Anything
else ends the process with a traceback, or, had the decoder's C code been led astray, with a signal. So does memory: the
address space is limited to what it is before the first of them, `DECODED_BYTES` and a small slack.

Prints {"count", "refused", "valid", "kinds": {kind: [refused, valid]}, "seconds"}.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import random
import resource
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from common.sequence import IMAGE_SHAPE, Chunk, ChunkKey, Rows
from replay_service.codec import (
    DECODED_BYTES,
    MAX_ACTION_SIZE,
    MAX_ROWS,
    CodecError,
    checksum,
    decode,
    encode,
    pack_images,
    read_header,
    views,
)
from tests import tiny
from tests.replay_service.episodes import assert_same, make_rows

MARK = b"DFC2"
PREFIX = struct.Struct("<4sIQQ")
SLACK_BYTES = 64 * 2**20
LARGE_ROWS = 1000
INTERESTING: list[Any] = [
    *(0, 1, 2, 3, 49, 254, 255, 256, 4095, 4096, 4097, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32),
    *(
        2**63 - 1,
        2**63,
        2**64 - 1,
        -1,
        -(2**31),
        -(2**63),
        MAX_ROWS,
        MAX_ROWS + 1,
        MAX_ACTION_SIZE,
        MAX_ACTION_SIZE + 1,
    ),
    *(True, False, None, 0.0, 1.0, float("nan"), float("inf"), "", "rows", b"", MARK, [], [0] * 5, {}, {"rows": 1}),
    *(msgpack.Timestamp(0, 1), msgpack.ExtType(1, b"x"), [[[[[[]]]]]]),
]
Mutation = Callable[[random.Random, bytes], bytes]


def seeds() -> list[bytes]:
    """Good chunks: one row and several, first of an episode and later, images as they are, of noise and packed."""
    picture = tiny.make(0).image()
    chunks = []
    for index, rows, action_size in itertools.product((0, 1), (1, 3), (1, 6)):
        noise = make_rows((0, 0, 0), 0, 9 * index, rows, action_size)
        still = Rows(
            np.broadcast_to(picture, noise.image.shape), noise.action, noise.reward, noise.discount, noise.is_first
        )
        for content, pack in ((noise, False), (noise, True), (still, True)):
            chunks.append(bytes(encode(Chunk(ChunkKey(0, 0, 0, 0, index), content, is_last=False), pack=pack)))
    return chunks


def largest() -> bytes:
    """As many rows as a chunk may have, in as few bytes as can hold them."""
    ones = np.ones(MAX_ROWS, np.float32)
    image = np.zeros((MAX_ROWS, *IMAGE_SHAPE), np.uint8)
    rows = Rows(image, ones[:, None], ones, ones, np.zeros(MAX_ROWS, np.bool_))
    return bytes(encode(Chunk(ChunkKey(0, 0, 0, 0, 1), rows, is_last=True), pack=True))


def parts(data: bytes) -> tuple[bytes, bytes]:
    """Header and payload."""
    length = struct.unpack_from("<I", data, 4)[0]
    return data[PREFIX.size : PREFIX.size + length], data[read_header(data).layout.offset :]


def sealed(header: bytes, payload: bytes) -> bytes:
    """An encoding of these, with the checksums that belong to them."""
    front = PREFIX.pack(MARK, len(header), checksum(header), checksum(payload)) + header
    return front.ljust(-(-len(front) // 64) * 64, b"\0") + payload


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bits flipped, bytes replaced, cut out, put in or doubled, anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) + 1) if rng.random() < 0.5 else min(len(changed), rng.randrange(160))
        match rng.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + 4] = rng.randbytes(4)
            case 2:
                del changed[at : at + rng.choice((1, 2, 4, 64, 1024, 100_000))]
            case 3:
                changed[at:at] = rng.randbytes(rng.choice((1, 2, 4, 64, 1024)))
            case 4:
                changed[at:at] = changed[at : at + rng.choice((1, 16, 64))]
            case 5:
                changed[at : at + rng.choice((4, 8, 64))] = bytes([rng.choice((0, 255))]) * rng.choice((4, 8, 64))
    return bytes(changed)


def noise(rng: random.Random, data: bytes) -> bytes:
    """Random bytes, some with the right mark, a plausible header length or a good front."""
    size = rng.choice((0, 1, 15, 16, 17, 24, 64, 128, 1000, 12_500))
    front = rng.choice((b"", MARK, struct.pack("<4sI", MARK, rng.randrange(600)), data[: PREFIX.size], data[:128]))
    return front + rng.randbytes(size)


def other_prefix(rng: random.Random, data: bytes) -> bytes:
    """Another header length, or other checksums."""
    values = list(PREFIX.unpack_from(data))
    values[rng.randrange(1, 4)] = rng.choice(
        (0, 1, 511, 512, 513, 2**31, 2**32 - 1, rng.randrange(2**32), values[1] + 1)
    )
    return PREFIX.pack(*values) + data[PREFIX.size :]


def other_fields(rng: random.Random, data: bytes) -> bytes:
    """A well-formed header that says something else, under a checksum of its own; often the payload follows it."""
    header, payload = parts(data)
    fields = msgpack.unpackb(header)
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice([*fields, "more"])
        match rng.randrange(8):
            case 0:
                fields.pop(name, None)
            case 1 if "key" in fields and isinstance(fields["key"], list):
                key = list(fields["key"])
                key[rng.randrange(len(key) + 1) :][:1] = [rng.choice(INTERESTING)]
                fields["key"] = [*key[:4], rng.choice(INTERESTING)]
            case 2:
                fields[name] = rng.randrange(5)
            case _:
                fields[name] = rng.choice(INTERESTING)
        if not fields:
            break
    header = packed_fields(fields)
    if rng.random() < 0.7:
        payload = fitted(payload, fields)
    return sealed(header, payload)


def packed_fields(fields: dict[str, Any]) -> bytes:
    """As msgpack; integers that it cannot hold as a text."""
    try:
        return msgpack.packb(fields)
    except OverflowError:
        return msgpack.packb({name: str(value) for name, value in fields.items()})


def fitted(payload: bytes, fields: dict[str, Any]) -> bytes:
    """The payload cut or filled up to the size that the header says, where that is less than 200 KB."""
    sizes = [fields.get(name) for name in ("rows", "action_size", "packed")]
    if not all(type(size) is int and 0 <= size < 2**20 for size in sizes):
        return payload
    rows, action_size, packed = sizes
    starts = [packed or rows * 12_288, rows * action_size * 4, rows * 4, rows * 4]
    size = sum(-(-start // 64) * 64 for start in starts) + rows
    return payload[:size].ljust(size, b"\0") if size < 200_000 else payload


def damaged_header(rng: random.Random, data: bytes) -> bytes:
    """A header of other bytes, under a checksum of its own."""
    header, payload = parts(data)
    changed = bytearray(header)
    match rng.randrange(4):
        case 0:
            changed = bytearray(rng.randbytes(rng.randrange(0, 513)))
        case 1:
            at = rng.randrange(len(changed))
            changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(1, 4))
        case 2:  # what opens more than it closes, or says it is huge
            mark = rng.choice(
                (b"\x91", b"\x81\xa1a", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\x7f\xff\xff\xff")
            )
            changed = bytearray((mark * 512)[: rng.randrange(1, 513)])
        case 3:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return sealed(bytes(changed), payload)


def damaged_payload(rng: random.Random, data: bytes) -> bytes:
    """Other rows, or an LZ4 block that is damaged, under a checksum of their own."""
    header, payload = parts(data)
    changed = bytearray(payload)
    start = 0 if rng.random() < 0.7 else max(0, len(changed) - 200)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(start, len(changed))
        changed[at] = rng.choice((0, 1, 2, 255, 0x0F, 0xF0, rng.randrange(256)))
    return sealed(header, bytes(changed))


def other_block(rng: random.Random, data: bytes) -> bytes:
    """Another LZ4 block, damaged, cut, random or of other images, under a header and checksums that speak of it."""
    header = read_header(data)
    image, *others = views(data, header.layout, header.action_size)
    block = bytearray(image if header.layout.packed else pack_images(image))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = min(rng.randrange(len(block)), rng.choice((8, 64, 2**31)))
        match rng.randrange(6):
            case 0:
                block[at] ^= 1 << rng.randrange(8)
            case 1:
                block[at : at + 1] = rng.choice((b"\xff" * 40, b"\0", b"\xf0", b"\x0f\x00\x00", b"\x1f\x41\x01\x00"))
            case 2:
                del block[at : at + rng.choice((1, 5, 100))]
            case 3:
                block[at:at] = rng.randbytes(rng.choice((1, 2, 20)))
            case 4:  # a match from before the beginning, or of endless length
                block[at:at] = struct.pack("<BH", rng.choice((0x0F, 0x1F, 0xFF)), rng.randrange(2**16)) + b"\xff" * 30
            case 5:
                block = bytearray(rng.randbytes(len(block)))
        if not block:
            block = bytearray(b"\0")
    rows = header.rows if rng.random() < 0.8 else rng.choice((1, 2, 4, 10))
    fields = {"version": 2, "key": list(header.key), "is_last": header.is_last}
    fields |= {"rows": rows, "action_size": header.action_size, "packed": len(block)}
    body = b"".join(part.tobytes().ljust(-(-part.nbytes // 64) * 64, b"\0") for part in others)
    return sealed(packed_fields(fields), fitted(bytes(block).ljust(-(-len(block) // 64) * 64, b"\0") + body, fields))


MUTATIONS: tuple[Mutation, ...] = (
    damaged,
    noise,
    other_prefix,
    other_fields,
    damaged_header,
    damaged_payload,
    other_block,
)


def encodings(seed: int) -> Iterator[tuple[str, bytes]]:
    """Mutations of each kind in turn; the same seed gives the same ones. Now and then one of the largest chunk."""
    rng = random.Random(seed)
    good, giant = seeds(), largest()
    yield "largest", giant
    for number in itertools.count():
        mutation = MUTATIONS[number % len(MUTATIONS)]
        source = giant if number % 20_011 == 0 else rng.choice(good)
        yield mutation.__name__, mutation(rng, source)


def is_refused(data: bytes) -> bool:
    """Whether the decoder refuses these bytes; those that it takes must be a valid chunk."""
    try:
        chunk = decode(data)
    except CodecError:
        return True
    if len(chunk.rows) > LARGE_ROWS:
        return False  # what follows would need more memory than the decoder may take
    again = decode(encode(chunk))
    assert (again.key, again.is_last) == (chunk.key, chunk.is_last)
    assert_same(again.rows, chunk.rows)
    return False


def limit_memory(more: int) -> None:
    """No more address space than there is now and this many bytes."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))


def main() -> None:
    """Decodes, and prints what came of it as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source = encodings(arguments.seed)
    outcomes: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    assert not is_refused(next(source)[1]), "the largest chunk is one"  # and from here on the memory for it is there
    limit_memory(DECODED_BYTES + SLACK_BYTES)
    began = time.perf_counter()
    for kind, data in itertools.islice(source, arguments.count):
        outcomes[kind][0 if is_refused(data) else 1] += 1
    refused, valid = (sum(counts) for counts in zip(*outcomes.values(), strict=True))
    seconds = round(time.perf_counter() - began, 1)
    print(
        json.dumps(
            {"count": arguments.count, "refused": refused, "valid": valid, "kinds": outcomes, "seconds": seconds}
        )
    )


if __name__ == "__main__":
    main()
