"""DeepSeek-OCR under vLLM. Importing any module but ``host`` and ``plugin`` imports no vLLM."""
