"""``python -m dsocr_batch`` is ``dsocr-batch``."""

from dsocr_batch.cli import main

if __name__ == "__main__":
    main()
