"""Pixels → what an engine wants. Pure functions without torch, run in render processes."""
