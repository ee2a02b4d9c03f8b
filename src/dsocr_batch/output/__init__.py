"""What a run leaves in its output directory: paths, atomic files, journals, locks.

Everything here is synchronous and is called from one writer thread.
"""
