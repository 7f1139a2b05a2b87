"""Where a run's Redis servers are, and the password that is written nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.redis_access import PASSWORD_VARIABLE, check_servers, new_prefix, read_password, validate_redis
from common.config import Config
from common.errors import UserError
from tests.cluster.commands import one_line_and_exit_2, train
from tests.redis_server import RedisServer

ON_REDIS = Config(replay_store="redis", redis_url="redis://localhost:6379")


@pytest.mark.parametrize(
    "url",
    [
        "redis://a:1",
        "rediss://me@a.b.c:6379/2?ssl_ca_certs=/x.pem",
        "redis://a:1, redis://b:2",
        "redis://a:1,redis://me@b:2",
        "redis://[::1]:6379",
    ],
)
def test_addresses_that_are_taken(url: str) -> None:
    validate_redis(replace(ON_REDIS, redis_url=url))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "needs --redis-url"),
        ("localhost:6379", "is not redis://host:port"),
        ("http://localhost", "is not redis://host:port"),
        ("redis://localhost:port", "not an address"),
        ("redis://", "is not redis://host:port"),
        ("redis://me:secret@localhost:6379", PASSWORD_VARIABLE),
        ("redis://localhost?password=secret", "'password' is no setting that an address may hold"),
        ("redis://localhost?socket_timeout=x", "'socket_timeout' is no setting"),
        ("redis://localhost/abc", "a database's number"),
        ("redis://a:1,redis://:secret@b", "--redis-password-file"),
        ("redis://me:se#secret@localhost:1", "must hold no password"),
        ("redis://:se/secret@localhost", "must hold no password"),
        ("redis://:se?secret@localhost", "must hold no password"),
        ("redis://:se,secret@localhost", "must hold no password"),
        ("redis://:a@secret@localhost", "must hold no password"),
        ("redis://[secret@localhost", "not an address"),
        ("me:secret@localhost:6379", "must hold no password"),
        ("redis://localhost:secret", "not an address"),
    ],
)
def test_addresses_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as raised:
        validate_redis(replace(ON_REDIS, redis_url=url))
    assert "secret" not in str(raised.value)


def test_a_prefix_is_one_word_and_is_not_shown() -> None:
    with pytest.raises(UserError, match="--redis-prefix may hold") as raised:
        validate_redis(replace(ON_REDIS, redis_prefix="secret@localhost:1"))
    assert "secret" not in str(raised.value)
    assert new_prefix("my run!") != new_prefix("my run!")
    validate_redis(replace(ON_REDIS, redis_prefix=new_prefix("my run!")))


def test_the_password_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    assert read_password("") == ""
    monkeypatch.setenv(PASSWORD_VARIABLE, "from outside")
    assert read_password("") == "from outside"
    (tmp_path / "password").write_text("from a file\n")
    assert read_password(str(tmp_path / "password")) == "from a file"
    with pytest.raises(UserError, match="--redis-password-file"):
        read_password(str(tmp_path / "none"))


def test_a_server_is_asked_before_anything_begins(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "safe", password="right") as server:
        config = replace(ON_REDIS, redis_url=server.url)
        assert check_servers(config, "right") == []
        with pytest.raises(UserError, match=PASSWORD_VARIABLE):
            check_servers(config, "wrong")
        with pytest.raises(UserError, match=PASSWORD_VARIABLE):
            check_servers(config, "")
    with RedisServer(tmp_path / "forgetful", appendonly="no") as server:
        (warning,) = check_servers(replace(ON_REDIS, redis_url=server.url), "")
        assert "writes no append-only file" in warning


def test_a_run_on_a_server_that_is_not_there_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = RedisServer(tmp_path / "redis")
    line = one_line_and_exit_2(train(tmp_path / "run", "--replay-store", "redis", "--redis-url", gone.url), capsys)
    assert "cannot be used" in line
    assert not (tmp_path / "run").exists()
