"""Whether a run could start on this machine, and what would be in its way."""
