"""Answers with the size and the digest of the pixels that it finds."""

import hashlib
import mmap

from dsocr_batch.child import Message, serve


def answer(request: Message) -> Message:
    if request["do"] == "load":
        return {}
    size = request["width"] * request["height"] * 3
    with mmap.mmap(request["fd"], size, access=mmap.ACCESS_READ) as shared:
        digest = hashlib.sha256(shared.read(size)).hexdigest()
    return {"text": digest, "confidence": 0.5, "quarter_turns": 1}


if __name__ == "__main__":
    serve(answer)
