"""DeepSeek-OCR behind HTTP: ``vllm serve``, deepseek-ocr.rs, any OpenAI-compatible server."""
