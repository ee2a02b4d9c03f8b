"""Loads, and never answers for a page."""

import time

from dsocr_batch.child import Message, serve


def answer(request: Message) -> Message:
    if request["do"] == "read":
        time.sleep(3600)
    return {}


if __name__ == "__main__":
    serve(answer)
