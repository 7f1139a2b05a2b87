"""What a Redis user with the rights of deploy/redis/users.acl can do, on a real server with that list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from common.config import ReplayConfig
from replay_service.codec import encode
from replay_service.replay import Replay
from replay_service.stores.redis import RedisStore
from tests.redis_server import RedisServer
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, make_episode

RULES = (Path(__file__).parents[2] / "deploy" / "redis" / "users.acl").read_text()
MINE, THEIRS = "dreamfleet:mine:0:", "dreamfleet:theirs:0:"
REFUSED = "permission|can't access at least one of the keys"


def rules_of(user: str, prefix: str) -> str:
    """The recommended rules for a user of one project, without a password."""
    line = next(line for line in RULES.splitlines() if line.startswith("user dreamfleet "))
    words = line.replace("user dreamfleet off", f"user {user} on").replace("~dreamfleet:*", f"~{prefix}*").split()
    return " ".join("nopass" if word.startswith("#") else word for word in words)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Two projects with a user each, and an administrator."""
    users = tmp_path / "users.acl"
    admin = "user default on nopass ~* &* +@all"
    users.write_text("\n".join((admin, rules_of("me", "dreamfleet:mine:"), rules_of("them", "dreamfleet:theirs:"))))
    with RedisServer(tmp_path / "redis", aclfile=str(users)) as server:
        yield server


def replay_of(server: RedisServer, user: str, prefix: str) -> Replay:
    url = server.url.replace("redis://", f"redis://{user}@")
    return Replay(
        ReplayConfig(capacity=30),
        store=RedisStore(url, "", prefix, ACTION_SIZE),
        action_size=ACTION_SIZE,
        batch_length=4,
        action_repeat=REPEAT,
        seed=0,
    )


def everything_under(server: RedisServer, prefix: str) -> dict[bytes, bytes | None]:
    client = server.client()
    return {key: client.dump(key) for key in client.scan_iter(f"{prefix}*")}  # type: ignore[misc]  # no async here


def test_the_rights_are_enough_for_a_replay(server: RedisServer) -> None:
    replay = replay_of(server, "me", MINE)
    for chunk in make_episode(0, [4] * 10):  # evicting on the way
        replay.insert(encode(chunk))
    assert len(replay.sample(8)) == 8
    replay.close()
    assert replay_of(server, "me", MINE).report().inserted_env_steps == 39 * REPEAT


def test_nothing_outside_of_the_prefix_can_be_read_or_changed(server: RedisServer) -> None:
    theirs = replay_of(server, "them", THEIRS)
    theirs.insert(*(encode(chunk) for chunk in make_episode(0, [4, 4])))
    server.client().set("unrelated", "kept")
    before = everything_under(server, THEIRS)
    me = redis.Redis(port=server.port, username="me", password="")
    for key in (THEIRS + "facts", THEIRS + "chunk:0", "unrelated", "dreamfleet:mine", "dreamfleet:", "new"):
        for command in (
            ["GET", key],
            ["SET", key, "mine"],
            ["UNLINK", key],
            ["HSET", key, "writer", "me"],
            ["HSETNX", key, "writer", "me"],
            ["HDEL", key, "writer"],
            ["HGET", key, "writer"],
            ["HGETALL", key],
            ["HINCRBY", key, "inserted_env_steps", "1"],
            ["UNLINK", MINE + "chunk:0", key],
            ["EVAL", "return redis.call('UNLINK', KEYS[1])", "1", key],
            ["EVAL", f"return redis.call('UNLINK', '{key}')", "0"],
            ["EVAL", f"return redis.call('GET', '{key}')", "0"],
        ):
            with pytest.raises(redis.exceptions.ResponseError, match=REFUSED):
                me.execute_command(*command)
    assert everything_under(server, THEIRS) == before
    assert server.client().get("unrelated") == b"kept"
    assert theirs.insert(encode(make_episode(1, [4])[0])) == 3 * REPEAT


def test_the_server_itself_is_out_of_reach(server: RedisServer) -> None:
    me = redis.Redis(port=server.port, username="me", password="")
    for command in (
        *("FLUSHALL", "FLUSHDB", "SHUTDOWN NOSAVE", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "CONFIG GET *"),
        *("CONFIG SET maxmemory 1", "SCRIPT FLUSH", "SCRIPT KILL", "ACL LIST", "ACL SETUSER me allkeys", "MONITOR"),
        *("CLIENT LIST", "CLIENT KILL TYPE normal", "REPLICAOF 127.0.0.1 1", "SAVE", "BGREWRITEAOF"),
        *(f"DEL {MINE}facts", f"RENAME {MINE}facts stolen", f"MOVE {MINE}facts 1", f"COPY {MINE}facts stolen"),
        *("SWAPDB 0 1", "PUBLISH all hello", "MODULE LIST", "MIGRATE 127.0.0.1 1 x 0 1", "FUNCTION FLUSH"),
    ):
        with pytest.raises(redis.exceptions.ResponseError, match=REFUSED):
            me.execute_command(*command.split())


def test_garbage_under_one_prefix_is_nobody_elses_trouble(server: RedisServer) -> None:
    mine, theirs = replay_of(server, "me", MINE), replay_of(server, "them", THEIRS)
    for replay in (mine, theirs):
        replay.insert(*(encode(chunk) for chunk in make_episode(0, [4, 4])))
    me = redis.Redis(port=server.port, username="me", password="")
    for key in everything_under(server, MINE):
        me.unlink(key)
        me.set(key, b"garbage")
    assert len(theirs.sample(8)) == 8
    theirs.insert(encode(make_episode(1, [4])[0]))
    theirs.close()
    assert replay_of(server, "them", THEIRS).report().chunks == 3
