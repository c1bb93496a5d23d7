"""Answers that are larger than a message may be travel in several, one after the other: their bytes, cut anywhere."""

from __future__ import annotations

from .messages import MAX_MESSAGE_BYTES, Envelope, Garbage, Part, decode_body, decode_envelope, encode

# Bytes of an answer in one part: leaves room for the envelope.
PART_BYTES = MAX_MESSAGE_BYTES // 2
# Of one answer; more is a mistake of whoever sends it.
MOST_PARTS = 64


def split(data: bytes, *, epoch: int, seq: int) -> list[bytes]:
    """Return the messages that carry an encoded one: itself when it is small enough."""
    if len(data) <= MAX_MESSAGE_BYTES:
        return [data]
    pieces = [data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES)]
    return [encode(Part(number, len(pieces), piece), epoch=epoch, seq=seq) for number, piece in enumerate(pieces)]


class Joiner:
    """Puts the parts together that arrive on one socket."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def envelope(self, data: bytes) -> Envelope | None:
        """Return the envelope of the next message; None while parts of it are missing. Raises `Garbage`."""
        envelope = decode_envelope(data)
        if envelope.kind != "part":
            return envelope
        part = decode_body(envelope)
        assert isinstance(part, Part)
        if part.number == 0:
            self._pieces.clear()  # the rest of another answer was lost
        if part.number != len(self._pieces) or not part.number < part.of <= MOST_PARTS:
            raise Garbage(f"part {part.number} of {part.of} after {len(self._pieces)} parts")
        self._pieces.append(part.data)
        if len(self._pieces) < part.of:
            return None
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return decode_envelope(whole, MOST_PARTS * MAX_MESSAGE_BYTES)
