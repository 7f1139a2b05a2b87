"""Measures one part of the system against its limit."""
