"""What can be wrong with what the checker is given: one line each, and exit code 2."""

from __future__ import annotations


class TlaError(Exception):
    """A module, a configuration or a tool that cannot be used; the text says where and why."""
