"""Fails as an installation without its models would."""

raise ModuleNotFoundError("No module named 'rapidocr'")
