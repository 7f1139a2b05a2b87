"""What comes over the network cannot harm the run: strange requests, slow ones, too many."""

from __future__ import annotations

import errno
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.telemetry import server as server_module
from cluster.telemetry.catalogue import METRICS, PREFIX
from cluster.telemetry.exposure import exposed
from cluster.telemetry.server import AT_ONCE, LINGER_SECONDS, MetricsServer
from cluster.telemetry.telemetry import Telemetry
from common.config import Config
from common.errors import UserError
from common.run_folder import RunFolder

PORT = 19464


@pytest.fixture
def telemetry(tmp_path: Path) -> Telemetry:
    folder = RunFolder(tmp_path / "run")
    folder.lock()
    folder.create(Config())
    return Telemetry(folder)


@pytest.fixture
def server(telemetry: Telemetry) -> Iterator[MetricsServer]:
    with MetricsServer("127.0.0.1", PORT, telemetry) as running:
        yield running


def page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


HUNG_UP = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)


def raw(port: int, data: bytes) -> bytes:
    """Everything that the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError as error:
            if error.errno not in HUNG_UP:
                raise
            return b""


def test_the_page_holds_what_is_public_by_the_catalogues_names(telemetry: Telemetry, server: MetricsServer) -> None:
    telemetry.numbers.add("episodes_total", 3)
    telemetry.numbers.observe("update_seconds", 0.3, 2)
    telemetry.numbers.set("training_metric", float("nan"), 'a"b\\c\nd')
    telemetry.numbers.set("roles_alive", 2, "collector")
    assert "dreamfleet_episodes_total 0.0" in page(server.port), "not public yet"
    telemetry.publish()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page(server.port))
        for sample in family.samples
    }
    assert samples["dreamfleet_episodes_total",] == 3
    assert samples["dreamfleet_roles_alive", "collector"] == 2
    assert ("dreamfleet_training_metric", 'a"b\\c\nd') in samples
    assert samples["dreamfleet_update_seconds_bucket", "0.2"] == 0
    assert samples["dreamfleet_update_seconds_bucket", "0.5"] == samples["dreamfleet_update_seconds_count",] == 2
    assert samples["dreamfleet_update_seconds_sum",] == pytest.approx(0.6)


def test_every_name_keeps_prometheus_conventions() -> None:
    for name, metric in METRICS.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert metric.help.endswith("."), name
        assert PREFIX + name == (PREFIX + name).lower(), name


STRANGE = {
    "nothing": b"",
    "no words": b"\r\n\r\n",
    "another method": b"POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
    "a method of nobody's": b"METRICS / HTTP/1.1\r\n\r\n",
    "no version": b"GET /metrics\r\n",
    "a version of nobody's": b"GET /metrics HTTP/9.9.9\r\n\r\n",
    "another page": b"GET /../../etc/passwd HTTP/1.1\r\n\r\n",
    "no address": b"GET http://[ HTTP/1.1\r\n\r\n",
    "markup": b"GET /<script>alert(1)</script> HTTP/1.1\r\n\r\n",
    "a long line": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "many headers": b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n",
    "a long header": b"GET /metrics HTTP/1.1\r\na: " + b"b" * 100_000 + b"\r\n\r\n",
    "strange accept": b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=x;;=\r\n\r\n",
    "bytes": bytes(range(256)) * 10,
    "a query of nobody's": b"GET /metrics?run=%ff%00&run=;;&=&%%% HTTP/1.1\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
}


@pytest.mark.parametrize("data", STRANGE.values(), ids=STRANGE.keys())
def test_strange_requests_get_an_error_or_nothing(
    server: MetricsServer, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = raw(server.port, data)
    assert b"<script>" not in answer
    assert b"root:" not in answer
    assert capfd.readouterr() == ("", ""), "the terminal is the progress display's"
    assert "dreamfleet_episodes_total" in page(server.port)


def test_slow_clients_are_hung_up_on_and_others_are_served(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 1.0)
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(AT_ONCE)]
    began = time.monotonic()
    for connection in slow:
        connection.sendall(b"GET /met")
    closed = 0
    while time.monotonic() - began < 60 and closed < AT_ONCE:
        time.sleep(0.1)
        closed = 0
        for connection in slow:
            try:
                connection.sendall(b"x")  # a byte now and then keeps a mere socket timeout away
            except ConnectionError:
                closed += 1
    assert closed == AT_ONCE
    monkeypatch.undo()  # a busy machine may need more than a second for an honest one
    assert "dreamfleet_episodes_total" in page(server.port)
    for connection in slow:
        connection.close()


def test_a_crowd_is_turned_away_without_a_thread_for_everybody(server: MetricsServer) -> None:
    before = threading.active_count()
    crowd = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(4 * AT_ONCE)]
    time.sleep(0.5)
    assert threading.active_count() - before <= 2 * AT_ONCE  # each with a timer
    for connection in crowd:
        connection.close()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            assert "dreamfleet_episodes_total" in page(server.port)
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    pytest.fail("nobody is served after the crowd has gone")


def test_what_serving_costs_is_counted(telemetry: Telemetry, server: MetricsServer) -> None:
    telemetry.publish()
    before = telemetry.public.counters["telemetry_cpu_seconds_total",]
    for _ in range(5):
        page(server.port)
    cost, deadline = 0.0, time.monotonic() + 60
    while cost < 0.0001 and time.monotonic() < deadline:  # it is counted after the answer
        time.sleep(0.05)
        telemetry.publish()
        cost = telemetry.public.counters["telemetry_cpu_seconds_total",] - before
    assert 0.0001 < cost < 1.0


def test_who_asks_for_another_run_gets_nothing_of_this_one(telemetry: Telemetry, server: MetricsServer) -> None:
    own = urllib.parse.quote(str(telemetry.folder.path.resolve()))
    address = f"http://127.0.0.1:{server.port}/metrics?run="
    with urllib.request.urlopen(address + own, timeout=60) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + own + "2", timeout=60)


def test_a_taken_port_gives_the_next_free_one(telemetry: Telemetry) -> None:
    with socket.create_server(("127.0.0.1", PORT)), MetricsServer("127.0.0.1", PORT, telemetry) as first:
        assert first.port > PORT
        with MetricsServer("127.0.0.1", PORT, telemetry) as second:
            assert second.port > first.port
            assert page(second.port) == page(first.port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.1", "a" * 300])
def test_an_address_of_another_machine_is_one_clear_line(telemetry: Telemetry, host: str) -> None:
    with pytest.raises(UserError, match="--metrics-host"):
        MetricsServer(host, PORT, telemetry)


def test_no_free_port_is_one_clear_line(telemetry: Telemetry) -> None:
    with socket.create_server(("127.0.0.1", 65535)), pytest.raises(UserError, match="no port is free up to 65535"):
        MetricsServer("127.0.0.1", 65535, telemetry)


def test_the_run_folder_names_the_address_while_the_run_goes_on(telemetry: Telemetry) -> None:
    target = telemetry.folder.metrics_target
    with exposed(Config(metrics_port=PORT), telemetry.folder, telemetry) as address:
        port = int(address.removeprefix("http://127.0.0.1:").removesuffix("/metrics"))
        assert f'"targets": ["127.0.0.1:{port}"]' in target.read_text()
        assert '"run": "run"' in target.read_text()
        assert page(port)
    assert not target.exists()


def test_a_run_that_dies_leaves_its_address(telemetry: Telemetry) -> None:
    with pytest.raises(RuntimeError), exposed(Config(metrics_port=PORT), telemetry.folder, telemetry):
        raise RuntimeError
    assert telemetry.folder.metrics_target.exists()


def test_who_has_been_reading_reads_that_the_run_diverged(telemetry: Telemetry) -> None:
    pages: list[str] = []
    readers: list[threading.Thread] = []

    def scrape(port: int) -> None:
        time.sleep(0.5)
        pages.append(page(port))

    def diverge() -> None:
        with exposed(Config(metrics_port=PORT), telemetry.folder, telemetry) as address:
            port = int(address.removeprefix("http://127.0.0.1:").removesuffix("/metrics"))
            page(port)
            telemetry.numbers.set("diverged", 1)
            telemetry.publish()
            readers.append(threading.Thread(target=scrape, args=[port]))
            readers[0].start()
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        diverge()
    readers[0].join()
    assert "dreamfleet_diverged 1.0" in pages[0]


def test_nobody_is_waited_for_where_nobody_reads(telemetry: Telemetry) -> None:
    began = time.monotonic()
    with pytest.raises(FloatingPointError), exposed(Config(metrics_port=PORT), telemetry.folder, telemetry):
        raise FloatingPointError
    assert time.monotonic() - began < LINGER_SECONDS


def test_port_zero_opens_nothing(telemetry: Telemetry) -> None:
    before = threading.active_count()
    with exposed(Config(metrics_port=0), telemetry.folder, telemetry) as address:
        assert address == ""
        assert threading.active_count() == before
        assert not telemetry.folder.metrics_target.exists()


def test_ipv6_works(telemetry: Telemetry) -> None:
    config = Config(metrics_port=PORT, metrics_host="::1")
    with (
        exposed(config, telemetry.folder, telemetry) as address,
        urllib.request.urlopen(address, timeout=60) as answer,
    ):
        assert address.startswith("http://[::1]:")
        assert answer.status == 200
