"""A child process with bad manners, for ``test_child``."""

from __future__ import annotations

import os
import signal
import sys
import time

from dsocr_batch.child import Message, serve


def handle(message: Message) -> Message:
    match message["do"]:
        case "echo":
            return {"text": message["text"], "pid": os.getpid()}
        case "die":
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            sys.exit(7)
        case "raise":
            raise RuntimeError("went wrong")
        case "sleep":
            time.sleep(60)
        case "spin":
            while True:
                pass
        case "allocate":
            try:
                bytearray(message["bytes"])
            except MemoryError:
                return {"refused": True}
            return {"refused": False}
        case "print":
            print("noise on stdout", flush=True)
        case "ignore signals":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        case _:
            raise ValueError(message)
    return {}


if __name__ == "__main__":
    serve(handle)
