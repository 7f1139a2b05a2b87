"""Chunks on a Redis server: for a cluster, whose nodes share no disk.

Every key begins with `dreamfleet:<prefix>:<shard>:`, so that a server's access list can hold a run to its own keys:

```
…:chunk:<number>   a chunk, never changed
…:index            hash: number → the chunk's size and header
…:marks            hash: stream → episode and index of the last chunk appended
…:facts            hash: layout, inserted_env_steps, writer
```

Chunks, their entries and the evictions are one script call, which Redis runs whole or not at all. When a call fails
nobody knows whether it was run; the store then looks at what is there before it goes on, and says so to its owner.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgpack
import redis
from redis.backoff import NoBackoff
from redis.connection import Encoder, PythonRespSerializer
from redis.retry import Retry

from common.config import Config
from common.errors import UserError
from common.sequence import StreamKey
from replay_service.codec import BytesLike, Header, as_memoryview, front_of, read_front
from replay_service.stores.interface import Entry, Mark
from replay_service.stores.records import (
    RecordError,
    pack_layout,
    pack_mark,
    pack_stream,
    unpack_layout,
    unpack_mark,
)
from replay_service.stores.trouble import ChunkGoneError, StoreChangedError, StoreDamagedError, StoreUnavailableError

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 20.0
_NUMBER = struct.Struct(">Q")

# KEYS facts, marks, index, new chunks …, evicted chunks …
# ARGV writer, new chunks n, environment steps, n times (number, chunk, entry, stream, mark), evicted numbers …
_APPEND = """
if redis.call('HGET', KEYS[1], 'writer') ~= ARGV[1] then
  return redis.error_reply('REPLACED somebody else writes here, or the server began anew')
end
local new = tonumber(ARGV[2])
for i = 1, new do
  local place = 5 * i - 1
  redis.call('SET', KEYS[3 + i], ARGV[place + 1])
  redis.call('HSET', KEYS[3], ARGV[place], ARGV[place + 2])
  redis.call('HSET', KEYS[2], ARGV[place + 3], ARGV[place + 4])
end
for i = 1, #KEYS - 3 - new do
  redis.call('UNLINK', KEYS[3 + new + i])
  redis.call('HDEL', KEYS[3], ARGV[3 + 5 * new + i])
end
return redis.call('HINCRBY', KEYS[1], 'inserted_env_steps', ARGV[3])
"""
_AWAY = (
    redis.exceptions.ConnectionError,  # BusyLoadingError is one: the server reads its file after a restart
    redis.exceptions.TimeoutError,
)
_REFUSALS = (  # a full server, one with a full disk, a copy that takes no writes: nothing was done
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
)
_REFUSING = ("OOM", "MISCONF", "NOREPLICAS", "BUSY")


class RedisReader:
    """Implements `replay_service.stores.StoreReader` with one shard's keys on one Redis server.

    Args:
        url: redis:// or rediss://, without a password.
        password: or an empty string.
        prefix: what the shard's keys begin with, colon included.

    Raises:
        UserError: the server refuses this user, or holds nothing under the prefix.
        StoreUnavailableError: it does not answer now.
    """

    def __init__(self, url: str, password: str, prefix: str) -> None:
        self._prefix = prefix
        self._name = server_name(url)
        self._redis = connect(url, password)
        self._sizes: dict[int, int] = {}  # in Redis, by number
        with self._one_conversation():
            self._begin()

    @classmethod
    def open(cls, config: Config, folder: Path, shard: int, password: str) -> Self:
        """Connects to the shard's server."""
        return cls(shard_url(config, shard), password, shard_prefix(config, shard))

    @property
    def action_size(self) -> int:
        """See `StoreReader.action_size`."""
        return self._action_size

    @property
    def inserted_env_steps(self) -> int:
        """See `StoreReader.inserted_env_steps`."""
        with self._one_conversation():
            return self._count()

    @property
    def stored_bytes(self) -> int:
        """Size of what was held at the last scan."""
        return sum(self._sizes.values())

    @contextmanager
    def read(self, sequences: Sequence[int]) -> Iterator[list[BytesLike]]:
        """See `StoreReader.read`."""
        with self._one_conversation():
            pipeline = self._redis.pipeline(transaction=False)
            for sequence in sequences:
                pipeline.get(self._chunk(sequence))
            found: list[bytes | None] = pipeline.execute()
            missing = [number for number, data in zip(sequences, found, strict=True) if data is None]
            if missing:
                self._miss(missing)
        yield [data for data in found if data is not None]

    def scan(self) -> list[tuple[int, Header]]:
        """See `StoreReader.scan`; a chunk whose header is damaged ends it with a StoreDamagedError."""
        with self._one_conversation():
            index: dict[bytes, bytes] = self._redis.hgetall(self._key("index"))  # type: ignore[assignment]  # no async here
        self._sizes, found = {}, list[tuple[int, Header]]()
        for number, entry in sorted(index.items()):  # big-endian, so in the order of insertion
            sequence = int.from_bytes(number)
            try:
                size, front = msgpack.unpackb(entry)
                found.append((sequence, read_front(front, size)))
            except (ValueError, TypeError) as error:  # CodecError is one
                raise StoreDamagedError(f"{self._name}: {self._prefix}: chunk {sequence}: {error}") from error
            self._sizes[sequence] = size
        return found

    def marks(self) -> dict[StreamKey, Mark]:
        """See `StoreReader.marks`."""
        with self._one_conversation():
            marks: dict[bytes, bytes] = self._redis.hgetall(self._key("marks"))  # type: ignore[assignment]  # no async here
            return dict(unpack_mark(stream, mark) for stream, mark in marks.items())

    def close(self) -> None:
        """See `StoreReader.close`."""
        self._redis.close()

    def _begin(self) -> None:
        layout: Any = self._redis.hget(self._key("facts"), "layout")
        if layout is None:
            raise UserError(f"{self._name} holds no replay under {self._prefix}")
        self._action_size: int = unpack_layout(layout)["action_size"]

    def _miss(self, numbers: Sequence[int]) -> None:
        raise ChunkGoneError(f"{self._name}: {self._chunk(numbers[0]).decode()} is not there")

    def _count(self) -> int:
        inserted: Any = self._redis.hget(self._key("facts"), "inserted_env_steps")
        try:
            return int(inserted or 0)
        except ValueError as error:
            raise RecordError("its count of environment steps is no number") from error

    def _key(self, name: str) -> bytes:
        return f"{self._prefix}{name}".encode()

    def _chunk(self, number: int) -> bytes:
        return self._key(f"chunk:{number}")

    @contextmanager
    def _one_conversation(self) -> Iterator[None]:
        """Turns what the client raises into the store's own errors.

        Raises:
            StoreUnavailableError: the server does not answer, or takes nothing more now.
            UserError: it never will.
        """
        try:
            yield
        except RecordError as error:
            raise StoreDamagedError(f"{self._name}: {self._prefix}: {error}") from error
        except redis.exceptions.AuthenticationError as error:
            raise UserError(f"{self._name} refuses this user: {error}") from error
        except redis.exceptions.RedisError as error:
            if isinstance(error, _AWAY) or _refuses(error):
                raise StoreUnavailableError(f"{self._name}: {_in_its_words(error)}") from error
            raise UserError(f"{self._name}: {_in_its_words(error)}") from error


class RedisStore(RedisReader):
    """Implements `replay_service.stores.Store`: the one writer of a shard's keys.

    Args:
        url: redis:// or rediss://, without a password.
        password: or an empty string.
        prefix: what the shard's keys begin with, colon included.
        action_size: A of every chunk.

    Raises:
        UserError: the server refuses this user, throws keys away by itself, or holds another layout.
        StoreUnavailableError: it does not answer now.
    """

    def __init__(self, url: str, password: str, prefix: str, action_size: int) -> None:
        self._action_size = action_size
        self._writer = b""
        self._writers: set[bytes] = set()  # every name that this process has had: it may not know which one arrived
        self._in_doubt = False
        self._inserted_env_steps = 0
        super().__init__(url, password, prefix)
        self._append = self._redis.register_script(_APPEND)

    @classmethod
    def open_to_write(cls, config: Config, folder: Path | None, shard: int, action_size: int, password: str) -> Self:
        """Connects to the shard's server: shards take the servers in turn."""
        if not config.redis_prefix:
            raise UserError("--replay-store redis needs --redis-prefix, a name for this run's keys")
        return cls(shard_url(config, shard), password, shard_prefix(config, shard), action_size)

    @property
    def inserted_env_steps(self) -> int:
        """See `StoreReader.inserted_env_steps`."""
        return self._inserted_env_steps

    def append(self, entries: Sequence[Entry], evict: Sequence[int]) -> None:
        """See `Store.append`."""
        names = [self._key(name) for name in ("facts", "marks", "index")]
        chunks = [self._chunk(number) for number in (*(entry.sequence for entry in entries), *evict)]
        env_steps = sum(entry.env_steps for entry in entries)
        sizes = {entry.sequence: len(as_memoryview(entry.data)) for entry in entries}
        described = [
            part
            for sequence, key, data, _ in entries
            for part in (
                _NUMBER.pack(sequence),
                as_memoryview(data),
                msgpack.packb([sizes[sequence], front_of(data)]),
                pack_stream(key.stream),
                pack_mark((key.episode, key.index)),
            )
        ]
        with self._one_conversation():
            inserted = self._append(
                keys=[*names, *chunks],
                args=[self._writer, len(entries), env_steps, *described, *(_NUMBER.pack(number) for number in evict)],
            )
        self._inserted_env_steps += env_steps
        self._in_doubt = inserted != self._inserted_env_steps  # the server began anew between two calls, with less
        self._sizes |= sizes
        for number in evict:
            self._sizes.pop(number, None)

    def _begin(self) -> None:
        check_server(self._redis, self._name)
        layout = pack_layout(self._action_size)
        self._redis.hsetnx(self._key("facts"), "layout", layout)
        found: Any = self._redis.hget(self._key("facts"), "layout")
        if found != layout:
            raise UserError(
                f"{self._name} holds chunks of layout {unpack_layout(found)} under {self._prefix}, this run has "
                f"{unpack_layout(layout)}; choose another --redis-prefix"
            )
        self._take_over()

    def _miss(self, numbers: Sequence[int]) -> None:
        """Finds out why chunks are missing: with their entries, as a server loses them, or by somebody's hand."""
        if all(self._redis.hexists(self._key("index"), _NUMBER.pack(number)) for number in numbers):
            name = self._chunk(numbers[0]).decode()
            raise UserError(f"{self._name} has lost {name}, which nobody but its run may delete: begin another run")
        self._in_doubt = True
        raise StoreUnavailableError(f"{self._name} has lost a part of what it held")

    def _take_over(self) -> None:
        """Becomes the one writer, under a name for which a call still on its way is too late; reads the counters."""
        writer = secrets.token_bytes(8)
        self._writers.add(writer)
        self._redis.hset(self._key("facts"), "writer", writer)
        self._writer = writer
        self._inserted_env_steps = self._count()

    @contextmanager
    def _one_conversation(self) -> Iterator[None]:
        """What goes wrong in the block puts what Redis holds in doubt, until the next one has looked.

        Raises:
            StoreUnavailableError: the server does not answer, or takes nothing more now.
            StoreChangedError: it answers again; what it holds must be read anew.
            UserError: another process has become the writer.
        """
        with super()._one_conversation():
            try:
                if self._in_doubt:
                    self._refuse_another_writer()
                    self._take_over()
                    self._in_doubt = False
                    raise StoreChangedError(f"{self._name} answers again")
                yield
            except _AWAY:
                self._in_doubt = True
                raise
            except redis.exceptions.ResponseError as error:
                if not str(error).startswith("REPLACED"):
                    raise
                self._in_doubt = True  # by another process, or by what this one was before a restart
                raise StoreUnavailableError(f"{self._name}: {error}") from error

    def _refuse_another_writer(self) -> None:
        writer: Any = self._redis.hget(self._key("facts"), "writer")
        if writer is not None and writer not in self._writers:
            raise UserError(f"{self._name}: another process writes to {self._prefix} now")


def shard_url(config: Config, shard: int) -> str:
    """The shard's server: shards take the servers in turn."""
    urls = server_urls(config)
    return urls[shard % len(urls)]


def shard_prefix(config: Config, shard: int) -> str:
    """What the shard's keys begin with."""
    return f"dreamfleet:{config.redis_prefix}:{shard}:"


def _refuses(error: redis.exceptions.RedisError) -> bool:
    return isinstance(error, _REFUSALS) or str(error).startswith(_REFUSING)


def _in_its_words(error: redis.exceptions.RedisError) -> str:
    """What the server says, without the place in our script where it says it."""
    return str(error).partition(" script: ")[0].rstrip(".")


def server_name(url: str) -> str:
    """The server of a URL, for people."""
    return f"Redis at {url.partition('://')[2].rpartition('@')[2].partition('?')[0]}"


def server_urls(config: Config) -> list[str]:
    """The servers that `redis_url` names."""
    return [url.strip() for url in config.redis_url.split(",") if url.strip()]


def connect(url: str, password: str) -> redis.Redis:
    """A client with the parser and packer that move large values fastest: hiredis reads, Python's packer sends."""
    packer = PythonRespSerializer(6000, Encoder("utf-8", "strict", False).encode)
    return redis.Redis.from_url(
        url,
        password=password or None,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        command_packer=packer,
        protocol=2,
    )


def check_server(client: redis.Redis, name: str) -> list[str]:
    """What a user should know of a server's settings.

    Raises:
        UserError: it throws keys away when it is full, which would punch holes into sequences.
    """
    memory: Any = client.info("memory")
    persistence: Any = client.info("persistence")
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and policy != "noeviction":
        raise UserError(
            f"{name} deletes keys by itself when it is full ({policy}): set its maxmemory-policy to noeviction"
        )
    if not persistence.get("aof_enabled"):
        return [f"{name} writes no append-only file: what it holds is lost when it stops (deploy/redis/ has settings)"]
    return []
