"""Redis servers of a run: where they are, the password that is written nowhere, and whether they will do."""

from __future__ import annotations

import itertools
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import redis

from common.config import Config
from common.errors import UserError
from replay_service.stores.redis import (
    check_server,
    connect,
    server_name,
    server_urls,
    shard_prefix,
    shard_url,
)

PASSWORD_VARIABLE = "DREAMFLEET_REDIS_PASSWORD"
ALLOWED_SETTINGS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}


def validate_redis(config: Config) -> None:
    """Raises UserError for addresses that cannot be, or that hold a password."""
    refuse_password(config.redis_url)
    if config.redis_prefix and not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", config.redis_prefix):
        raise UserError("--redis-prefix may hold letters, digits and any of . _ -, 100 at most")
    urls = server_urls(config)
    if config.replay_store == "redis" and not urls:
        raise UserError("--replay-store redis needs --redis-url, e.g. redis://localhost:6379")
    for url in urls:
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018  # looking at it is what refuses a port that is no number
        except ValueError:  # its text may hold what was meant as a password
            raise UserError("--redis-url: not an address: redis://host:port, where the port is a number") from None
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise UserError(f"--redis-url '{url}' is not redis://host:port or rediss://host:port")
        unknown = set(parse_qs(parts.query, keep_blank_values=True)) - ALLOWED_SETTINGS
        if unknown:
            raise UserError(
                f"--redis-url: '{sorted(unknown)[0]}' is no setting that an address may hold; "
                f"choose from {', '.join(sorted(ALLOWED_SETTINGS))}"
            )
        if not re.fullmatch(r"(/\d*)?", parts.path):
            raise UserError("--redis-url: the part behind the port must be a database's number, e.g. /0")


def refuse_password(addresses: str) -> None:
    """Raises UserError if one holds a password: before parsing, which a password's # / ? , or @ would mislead."""
    for address in re.split(r",\s*(?=\w+://)", addresses):
        if re.match(r"[^@]*:[^@]*@", address.partition("://")[2] or address):
            raise UserError(
                f"--redis-url must hold no password, which is what stands between : and @: "
                f"use {PASSWORD_VARIABLE} or --redis-password-file"
            )


def read_password(file: str) -> str:
    """The password in a file, or else in the environment; an empty string if there is none.

    Raises:
        UserError: the file cannot be read.
    """
    if not file:
        return os.environ.get(PASSWORD_VARIABLE, "")
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--redis-password-file {file}: {getattr(error, 'strerror', None) or error}") from None


def new_prefix(run_name: str) -> str:
    """A name for a run's keys that no other run has."""
    return f"{re.sub('[^A-Za-z0-9._-]', '_', run_name)[:60]}-{secrets.token_hex(4)}"


def check_servers(config: Config, password: str) -> list[str]:
    """Asks every server once; what a user should know about them.

    Raises:
        UserError: one does not answer, refuses the user, or throws keys away by itself.
    """
    warnings: list[str] = []
    for url in server_urls(config):
        with _asking(url, password) as client:
            client.ping()
            warnings += check_server(client, server_name(url))
    return warnings


def count_shards(config: Config, password: str) -> int:
    """How many shards a run has on its servers, found out by reading.

    Raises:
        UserError: none, or a server does not answer or refuses the user.
    """
    for shard in itertools.count():
        with _asking(shard_url(config, shard), password) as client:
            if client.hget(f"{shard_prefix(config, shard)}facts", "layout") is None:
                break
    if shard == 0:
        raise UserError(f"{server_name(config.redis_url)} holds no replay under the prefix {config.redis_prefix}")
    return shard


@contextmanager
def _asking(url: str, password: str) -> Iterator[redis.Redis]:
    """A client for some questions; what the server refuses is a UserError."""
    name = server_name(url)
    client = connect(url, password)
    try:
        yield client
    except redis.exceptions.AuthenticationError as error:
        raise UserError(
            f"{name} refuses this user ({error}): set {PASSWORD_VARIABLE} or give --redis-password-file"
        ) from None
    except redis.exceptions.RedisError as error:
        raise UserError(f"{name} cannot be used: {error}") from None
    finally:
        client.close()
