"""The errors that the command line turns into one line."""

from __future__ import annotations


class UsageError(ValueError):
    """Input that the user can correct. The message is one line: what was given, what is allowed, what to do."""


class MissingData(Exception):
    """Data that is neither on disk nor reachable. The message says how to get it."""
