"""Where ranks find each other."""

from __future__ import annotations

import psutil

from learner.meeting import LOOPBACK, interface_of, open_meeting


def test_what_one_rank_keeps_there_another_finds() -> None:
    meeting, store = open_meeting(LOOPBACK, 2)
    store.set("asked", "answered")
    assert meeting.join(2).get("asked") == b"answered"


def test_a_meeting_on_loopback_can_be_reached_from_nowhere_else() -> None:
    meeting, store = open_meeting(LOOPBACK, 2)
    listening = [c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert [address.ip for address in listening if address.port == meeting.port] == [LOOPBACK]
    del store


def test_an_interface_is_found_by_its_address() -> None:
    assert interface_of(LOOPBACK) == "lo"
    assert interface_of("192.0.2.1") == ""
