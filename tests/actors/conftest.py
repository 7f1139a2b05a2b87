"""Chooses this process's OpenGL backend before anything imports DMControl."""

from __future__ import annotations

from actors.rendering import configure

configure("auto")
