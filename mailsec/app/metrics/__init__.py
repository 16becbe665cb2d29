"""Metrics: what workers count and look at, and how the supervisor adds it up and shows it (docs/running.md)."""
