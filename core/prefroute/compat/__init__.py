"""Readers of what other projects published."""
