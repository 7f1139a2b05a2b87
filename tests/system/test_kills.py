"""kill -9 at random moments, with exact accounts; `tests.system.kills` says what is held against what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import kills

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("store, capacity", [("lmdb", 10**9), ("lmdb", 4000), ("redis", 4000)])
def test_every_acknowledged_chunk_is_stored_once_and_every_window_is_one_episodes_rows(
    store: str, capacity: int, tmp_path: Path
) -> None:
    accounts = kills.run(store, kills=5, seed=3, folder=tmp_path, capacity=capacity)
    assert accounts["acknowledged_chunks"] > 20
    assert all(windows > 50 for windows in accounts["windows"].values())
