"""Measurements that anyone can repeat: ``dsocr-batch bench``."""
