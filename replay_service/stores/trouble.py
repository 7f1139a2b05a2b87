"""What a store that lives elsewhere may say instead of an answer."""

from __future__ import annotations

from common.errors import UserError


class StoreUnavailableError(Exception):
    """The store's server takes or gives nothing now; asking again may help."""


class StoreGaveUpError(UserError):
    """The store's server has been away for longer than anybody wanted to wait."""


class StoreDamagedError(UserError):
    """What the store keeps is not what was put into it."""


class StoreChangedError(Exception):
    """The store was out of reach; what it holds may differ from what was known, and must be read anew."""


class ChunkGoneError(Exception):
    """A chunk that was asked for is not in the store: it was evicted since, or its server has lost it."""
