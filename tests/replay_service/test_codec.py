import json
import struct
import subprocess
import sys
from dataclasses import replace

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.sequence import Chunk, ChunkKey, Rows
from replay_service.codec import MAX_ROWS, CodecError, checksum, decode, encode, read_header, unpack_images, views
from tests import tiny
from tests.replay_service.episodes import assert_same, make_episode

numbers = st.integers(0, 2**63 - 1)


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    rows, action_size = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    key = ChunkKey(*draw(st.tuples(numbers, numbers, numbers, numbers, st.just(0) | numbers)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))

    def floats(*shape: int) -> np.ndarray:  # any bits: infinities, NaNs and denormals too
        return rng.integers(0, 2**32, shape, np.uint32).view(np.float32)

    return Chunk(
        key,
        Rows(
            image=rng.integers(0, 256, (rows, 64, 64, 3), np.uint8),
            action=floats(rows, action_size),
            reward=floats(rows),
            discount=floats(rows),
            is_first=np.arange(rows) == (0 if key.index == 0 else -1),
        ),
        is_last=draw(st.booleans()),
    )


def chunk(index: int = 0) -> Chunk:
    return make_episode(0, [3] * (index + 1))[index]


def with_header(fields: object) -> bytes:
    """A chunk whose header is well formed but for what it says."""
    header = msgpack.packb(fields)
    data = bytes(encode(chunk()))
    payload = data[read_header(data).layout.offset :]
    front = struct.pack("<4sIQQ", b"DFC2", len(header), checksum(header), checksum(payload)) + header
    return front.ljust(-(-len(front) // 64) * 64, b"\0") + payload


GOOD_HEADER = {"version": 2, "key": [0, 0, 0, 0, 0], "is_last": True, "rows": 3, "action_size": 3, "packed": 0}


@settings(deadline=None, max_examples=60)
@given(chunks(), st.booleans())
def test_what_was_encoded_is_decoded_bit_for_bit(original: Chunk, pack: bool) -> None:
    decoded = decode(encode(original, pack=pack))
    assert decoded.key == original.key
    assert decoded.is_last == original.is_last
    assert_same(decoded.rows, original.rows)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_decode_reads_every_kind_of_buffer_without_copying(kind: type) -> None:
    buffer = kind(encode(chunk()))
    decoded = decode(buffer)
    assert np.shares_memory(decoded.rows.image, np.frombuffer(buffer, np.uint8))
    assert_same(decoded.rows, chunk().rows)


@pytest.mark.parametrize("pack", [False, True])
def test_views_find_every_block_from_the_sizes_alone_and_aligned(pack: bool) -> None:
    data = encode(chunk(), pack=pack)
    header = read_header(data)
    arrays = views(data, header.layout, header.action_size)
    start = data.ctypes.data
    assert [(array.ctypes.data - start) % 64 for array in arrays] == [0] * 5
    if pack:
        images = np.empty((3, 64, 64, 3), np.uint8)
        unpack_images(arrays[0], images)
        arrays[0] = images
    assert_same(Rows(*arrays), chunk().rows)


def test_pictures_get_smaller() -> None:
    original = make_episode(0, [20])[0]
    original.rows.image[:] = tiny.make(0).image()
    assert len(encode(original, pack=True)) < len(encode(original)) / 2


@pytest.mark.parametrize("change", [{"packed": 1}, {"packed": 3 * 12288}, {"packed": -1}, {"packed": 2**32}])
def test_a_block_that_cannot_hold_the_images_is_refused_before_memory_is_made_for_them(change: dict[str, int]) -> None:
    with pytest.raises(CodecError):
        decode(with_header({**GOOD_HEADER, **change}))


def test_a_block_of_other_images_is_refused() -> None:
    data = encode(chunk(), pack=True)
    block = views(data, read_header(data).layout, 3)[0]
    with pytest.raises(CodecError, match="compressed images"):
        unpack_images(block, np.empty((4, 64, 64, 3), np.uint8))
    with pytest.raises(CodecError, match="compressed images"):
        unpack_images(block[:-9], np.empty((3, 64, 64, 3), np.uint8))


def test_header_counts_environment_steps_without_the_reset_row() -> None:
    for index in (0, 1):
        header = read_header(encode(chunk(index)))
        assert header.env_steps(4) == chunk(index).rows.env_steps(4)


@settings(deadline=None, max_examples=150)
@given(st.data(), st.booleans())
def test_every_changed_byte_is_found(data: st.DataObject, pack: bool) -> None:
    mutated = np.array(encode(chunk(), pack=pack))
    offset = read_header(mutated).layout.offset
    used = 24 + struct.unpack_from("<I", mutated.data, 4)[0]
    position = data.draw(st.integers(0, used - 1) | st.integers(offset, len(mutated) - 1))
    mutated[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CodecError):
        decode(mutated)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200), st.integers(-2000, 2000))
def test_cut_lengthened_and_foreign_bytes_raise_codec_error(junk: bytes, change: int) -> None:
    with pytest.raises(CodecError):
        decode(junk)
    whole = bytes(encode(chunk()))
    if change:
        with pytest.raises(CodecError):
            decode(whole[:change] if change < 0 else whole + b"\0" * change)


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(sorted(GOOD_HEADER)), st.none() | st.text(max_size=3) | st.lists(st.integers(-1, 9))
    )
    | st.lists(st.integers(0, 9))
)
def test_headers_that_hold_something_else_raise_codec_error(change: object) -> None:
    fields = {**GOOD_HEADER, **change} if isinstance(change, dict) else change
    if fields != GOOD_HEADER:
        with pytest.raises(CodecError):
            decode(with_header(fields))


def test_forged_header_with_its_good_values_decodes() -> None:
    assert_same(decode(with_header(GOOD_HEADER)).rows, chunk().rows)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"version": 2.0},
        {"rows": 0},
        {"rows": MAX_ROWS + 1},
        {"rows": 2**62, "action_size": 2**62},
        {"rows": 4},
        {"rows": True},
        {"action_size": 0},
        {"key": [0, 0, 0, 0, -1]},
        {"key": [0, 0, 0, 0, 2**63]},
        {"key": [0, 0, 0, 0, True]},
        {"key": [0, 0, 0, 0]},
        {"key": [0, 0, 0, 0, 1]},  # its first row is a reset row
        {"is_last": 1},
        {"more": 1},
    ],
)
def test_impossible_headers_raise_codec_error(change: dict[str, object]) -> None:
    with pytest.raises(CodecError):
        decode(with_header({**GOOD_HEADER, **change}))


def test_header_longer_than_allowed_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(CodecError, match="longer than the allowed"):
        decode(with_header({**GOOD_HEADER, "more": "x" * 1000}))


def test_verify_false_skips_the_checksum_alone() -> None:
    data = encode(chunk())
    data[read_header(data).layout.offset] ^= 1
    assert decode(data, verify=False).key == chunk().key
    with pytest.raises(CodecError, match="checksum"):
        decode(data)


@pytest.mark.parametrize(
    "change",
    [
        {"image": np.zeros((3, 64, 64, 1), np.uint8)},
        {"image": np.zeros((3, 64, 64, 3), np.float32)},
        {"action": np.zeros((3, 0), np.float32)},
        {"action": np.zeros(3, np.float32)},
        {"reward": np.zeros(3)},
        {"reward": np.zeros(2, np.float32)},
        {"is_first": np.array([False, False, False])},
        {"is_first": np.array([True, False, True])},
    ],
)
def test_encode_refuses_rows_of_another_form(change: dict[str, np.ndarray]) -> None:
    original = chunk()
    with pytest.raises(CodecError):
        encode(replace(original, rows=replace(original.rows, **change)))


@pytest.mark.parametrize("count", [10_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_anything_is_refused_or_a_valid_chunk_within_the_stated_memory(count: int) -> None:
    harness = [sys.executable, "-m", "tests.replay_service.fuzz_codec", "--count", str(count)]
    ended = subprocess.run(harness, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout)
    assert outcome["refused"] + outcome["valid"] == count
    assert outcome["valid"] > count / 20, "mutations that get past the checksums are among them"
