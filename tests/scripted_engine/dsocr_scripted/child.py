"""The scripted engine's own process: it only takes its time, and can be killed."""

import time

from dsocr_batch.child import Message, serve


def handle(message: Message) -> Message:
    time.sleep(message["delay_s"])
    return {}


if __name__ == "__main__":
    serve(handle)
