"""Turn a large corpus of PDFs into markdown with DeepSeek-OCR."""

__version__ = "0.1.0"
