"""Tests with a real vLLM on the CPU; run by ``make test-vllm``, in an environment of their own."""
