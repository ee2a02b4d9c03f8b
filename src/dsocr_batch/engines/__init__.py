"""Engines: what reads a page. ``base`` is the seam, ``resolve`` finds them by name."""
