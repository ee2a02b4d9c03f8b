"""Pages of PDFs and images → pixels, in processes that may hang, crash or run out of memory."""
