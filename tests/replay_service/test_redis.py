"""The Redis store when its server dies, is full, stands still, or belongs to somebody else; always a real one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster.runtimes.patience import patiently
from common.config import ReplayConfig
from common.errors import NoWindowsError, UserError
from common.sequence import Chunk
from replay_service.codec import decode, encode
from replay_service.replay import Replay
from replay_service.stores import redis as redis_store
from replay_service.stores.interface import Entry
from replay_service.stores.redis import RedisStore
from replay_service.stores.trouble import StoreChangedError, StoreUnavailableError
from tests.redis_server import RedisServer
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, assert_same, make_episode

PREFIX = "dreamfleet:test:0:"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


def opened(server: RedisServer, password: str = "", prefix: str = PREFIX) -> RedisStore:
    return RedisStore(server.url, password, prefix, ACTION_SIZE)


def append(store: RedisStore, sequence: int, chunk: Chunk, evict: tuple[int, ...] = ()) -> None:
    store.append([Entry(sequence, chunk.key, encode(chunk), chunk.rows.env_steps(REPEAT))], evict)


def replay_on(store: RedisStore) -> Replay:
    settings = ReplayConfig(capacity=1000)
    return Replay(settings, store=store, action_size=ACTION_SIZE, batch_length=4, action_repeat=REPEAT, seed=0)


def test_what_was_acknowledged_survives_kill_9_of_the_server(server: RedisServer) -> None:
    chunks = make_episode(0, [4, 4, 4, 4])
    replay = replay_on(opened(server))
    stored = [replay.insert(encode(chunk)) for chunk in chunks[:2]]
    server.kill()
    with pytest.raises(StoreUnavailableError):
        replay.insert(encode(chunks[2]))
    assert "Redis at 127.0.0.1" in replay.report().trouble
    with pytest.raises(StoreUnavailableError):
        replay.sample(2)
    server.start()
    assert [replay.insert(encode(chunk)) for chunk in chunks] == [0, 0, 8, 8]
    assert replay.report().trouble == ""
    assert replay.report().inserted_env_steps == sum(stored) + 16
    fresh = replay_on(opened(server))
    assert fresh.report().rows == 16
    rewards = {float(reward) for chunk in chunks for reward in chunk.rows.reward}
    assert set(fresh.sample(64).reward.ravel().tolist()) == rewards


def test_a_call_that_was_run_but_not_answered_is_found_and_not_run_twice(server: RedisServer) -> None:
    chunks = make_episode(0, [4, 4])
    replay = replay_on(opened(server))
    replay.insert(encode(chunks[0]))
    with pytest.MonkeyPatch.context() as patch:
        store = replay._store
        assert isinstance(store, RedisStore)
        script = store._append

        def run_and_lose_the_answer(**arguments: object) -> None:
            script(**arguments)  # type: ignore[arg-type]  # passed on as they came
            raise redis.exceptions.ConnectionError("cut off")

        patch.setattr(store, "_append", run_and_lose_the_answer)
        with pytest.raises(StoreUnavailableError, match="cut off"):
            replay.insert(encode(chunks[1]))
    assert replay.insert(encode(chunks[1])) == 0
    assert replay.report().inserted_env_steps == 6 + 8
    assert replay.report().chunks == 2


def test_a_store_that_was_out_of_reach_says_so_once(server: RedisServer) -> None:
    store = opened(server)
    append(store, 0, make_episode(0, [3])[0])
    server.kill()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError), store.read([0]):
            pass
    server.start()
    with pytest.raises(StoreChangedError), store.read([0]):
        pass
    with store.read([0]) as (data,):
        assert_same(decode(data).rows, make_episode(0, [3])[0].rows)


def test_a_server_that_stands_still_is_not_waited_for_for_ever(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "ANSWER_SECONDS", 0.3)
    store = opened(server)
    server.pause()
    with pytest.raises(StoreUnavailableError, match=r"[Tt]imeout"):
        append(store, 0, make_episode(0, [3])[0])
    server.resume()
    replay = replay_on(opened(server))
    assert replay.report().chunks in (0, 1)
    replay.insert(encode(make_episode(0, [3])[0]))
    assert replay.report().chunks == 1


def test_a_full_server_takes_nothing_loses_nothing_and_goes_on_when_there_is_room(server: RedisServer) -> None:
    replay = replay_on(opened(server))
    chunks = make_episode(0, [20] * 20)
    server.client().config_set("maxmemory", "3mb")
    waiting = iter(chunks)
    with pytest.raises(StoreUnavailableError, match="maxmemory"):
        deque((replay.insert(encode(chunk)) for chunk in waiting), maxlen=0)
    inserted = len(chunks) - len(list(waiting)) - 1
    assert 0 < inserted < 20
    before = replay.report()
    server.client().config_set("maxmemory", "100mb")
    assert sum(replay.insert(encode(chunk)) > 0 for chunk in chunks) == 20 - inserted
    assert replay.report().inserted_env_steps > before.inserted_env_steps
    assert replay_on(opened(server)).report().rows == 400


def test_a_server_that_throws_keys_away_by_itself_is_refused(tmp_path: Path) -> None:
    settings = {"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"}
    with RedisServer(tmp_path, **settings) as server, pytest.raises(UserError, match="noeviction"):
        opened(server)


def test_a_second_writer_takes_over_and_the_first_is_told(server: RedisServer) -> None:
    first = opened(server)
    second = opened(server)
    append(second, 0, make_episode(0, [3])[0])
    with pytest.raises(StoreUnavailableError, match="REPLACED"):
        append(first, 0, make_episode(0, [3])[0])
    with pytest.raises(UserError, match="another process writes to dreamfleet:test:0:"):
        append(first, 0, make_episode(0, [3])[0])


def test_a_chunk_that_somebody_deleted_is_missed(server: RedisServer) -> None:
    store = opened(server)
    append(store, 0, make_episode(0, [3])[0])
    server.client().delete(f"{PREFIX}chunk:0")
    with pytest.raises(UserError, match="has lost dreamfleet:test:0:chunk:0"), store.read([0]):
        pass


def test_evicted_chunks_leave_no_keys(server: RedisServer) -> None:
    store = opened(server)
    for sequence, chunk in enumerate(make_episode(0, [2] * 6)):
        append(store, sequence, chunk, evict=(sequence - 2,) if sequence >= 2 else ())
    names = {key.decode().removeprefix(PREFIX) for key in server.client().scan_iter()}
    assert names == {"facts", "marks", "index", "chunk:4", "chunk:5"}


def test_nothing_that_is_stored_is_a_pickle(server: RedisServer) -> None:
    store = opened(server)
    append(store, 0, make_episode(0, [2])[0])
    value = server.client().get(f"{PREFIX}chunk:0")
    assert isinstance(value, bytes)
    assert value.startswith(b"DFC2")


def test_another_action_size_is_refused(server: RedisServer) -> None:
    opened(server)
    with pytest.raises(UserError, match="another --redis-prefix"):
        RedisStore(server.url, "", PREFIX, ACTION_SIZE + 1)


def test_a_server_that_is_not_there_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match=r"^Redis at 127\.0\.0\.1:\d+: "):
        opened(RedisServer(tmp_path))


def test_a_call_that_arrives_after_the_store_has_looked_again_is_refused(server: RedisServer) -> None:
    store = opened(server)
    chunks = make_episode(0, [3, 3])
    late: list[dict[str, Any]] = []
    script = store._append
    with pytest.MonkeyPatch.context() as patch:

        def hold_back(**arguments: Any) -> None:
            late.append(arguments)
            raise redis.exceptions.TimeoutError("no answer")

        patch.setattr(store, "_append", hold_back)
        with pytest.raises(StoreUnavailableError):
            append(store, 0, chunks[0])
    with pytest.raises(StoreChangedError):
        store.marks()
    append(store, 0, make_episode(5, [4])[0])
    with pytest.raises(redis.exceptions.ResponseError, match="REPLACED"):
        script(**late[0])
    with store.read([0]) as (data,):
        assert decode(data).key.episode == 5
    assert store.inserted_env_steps == 6


def test_a_server_that_began_anew_between_two_calls_is_noticed(tmp_path: Path) -> None:
    with RedisServer(tmp_path, appendonly="no") as server:
        replay = replay_on(opened(server))
        chunks = make_episode(0, [4, 4, 4])
        replay.insert(encode(chunks[0]))
        replay.insert(encode(chunks[1]))
        server.client().flushall()
        assert patiently(lambda: replay.insert(encode(chunks[2])), 5) == 8
        assert replay.report().inserted_env_steps == 8
        assert replay.report().chunks == 1
        server.client().flushall()
        with pytest.raises(StoreUnavailableError, match="has lost a part"):
            replay.sample(3)
        with pytest.raises(NoWindowsError):
            replay.sample(3)
        assert replay.report().inserted_env_steps == 0


@pytest.mark.parametrize("fails", ["marks", "scan"])
def test_a_store_that_refuses_to_be_taken_up_is_taken_up_later(
    fails: str, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = make_episode(0, [4, 4])
    store = opened(server)
    replay = replay_on(store)
    replay.insert(encode(chunks[0]))
    server.kill()
    with pytest.raises(StoreUnavailableError):
        replay.insert(encode(chunks[1]))
    server.start()
    server.client().flushall()
    whole = getattr(store, fails)
    with monkeypatch.context() as patch:

        def refuse() -> None:
            whole()
            raise StoreUnavailableError("BUSY Redis is busy running a script")

        patch.setattr(store, fails, refuse)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="BUSY"):
                replay.insert(encode(chunks[1]))
    assert replay.insert(encode(chunks[0])) == 6
    assert replay.report().chunks == 1


def test_a_full_server_still_gives_what_it_holds(server: RedisServer) -> None:
    replay = replay_on(opened(server))
    chunks = make_episode(0, [20] * 20)
    replay.insert(encode(chunks[0]))
    server.client().config_set("maxmemory", "1mb")
    with pytest.raises(StoreUnavailableError, match="maxmemory"):
        replay.insert(encode(chunks[1]))
    assert len(replay.sample(3)) == 3
