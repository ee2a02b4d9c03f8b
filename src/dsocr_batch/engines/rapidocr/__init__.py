"""The embedded CPU engine: no GPU, no download; not DeepSeek-OCR, but the same output shape."""
