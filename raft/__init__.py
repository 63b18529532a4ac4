"""Raft as a state machine without I/O; README.md has the reading order."""
