"""A login over TLS that ends at the layer, while the server behind it is spoken to in the clear. No I/O."""

from __future__ import annotations

from wrapper.testing.mysql.rewrite import HEADER, TLS

SHORT_LOGIN = HEADER + 32
# The first byte of the packet that ends a login.
_ENDS = (0x00, 0xFF)


def asks_for_tls(data: bytes) -> bool:
    """Whether a client's first packet is nothing but the wish to go on in TLS."""
    return len(data) >= SHORT_LOGIN and data[0] == 32 and int.from_bytes(data[HEADER : HEADER + 4], "little") & TLS != 0


class Login:
    """The client has sent one packet more than the server sees, so the numbers of both sides' packets differ until they begin anew
    with the first command."""

    def __init__(self) -> None:
        self.is_over = False
        self._from_client = bytearray()
        self._from_server = bytearray()

    def to_server(self, data: bytes) -> bytes:
        """Return what to send to the server."""
        if self.is_over:
            return data
        self._from_client += data
        out = bytearray()
        while packet := _take(self._from_client):
            if packet[3] == 2:  # the login itself
                packet[HEADER + 1] &= ~(TLS >> 8) & 0xFF
            packet[3] -= 1
            out += packet
        return bytes(out)

    def to_client(self, data: bytes) -> bytes:
        """Return what to send to the client."""
        if self.is_over:
            return data
        self._from_server += data
        out = bytearray()
        while not self.is_over and (packet := _take(self._from_server)):
            packet[3] += 1
            self.is_over = packet[HEADER] in _ENDS
            out += packet
        return bytes(out + self._from_server) if self.is_over else bytes(out)


def _take(buffer: bytearray) -> bytearray:
    """Take the first packet out of a buffer; empty when it is not whole yet."""
    size = HEADER + int.from_bytes(buffer[:3], "little")
    if len(buffer) < max(HEADER + 1, size):
        return bytearray()
    packet = buffer[:size]
    del buffer[:size]
    return packet
