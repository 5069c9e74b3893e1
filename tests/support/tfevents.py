"""Reads TensorBoard event files by the published format alone: framing, masked CRC32C, the fields of a scalar."""
import os
import struct

TABLE = []
for i in range(256):
    for _ in range(8):
        i = (i >> 1) ^ (0x82F63B78 if i & 1 else 0)
    TABLE.append(i)


def masked_crc32c(data):
    c = 0xFFFFFFFF
    for byte in data:
        c = TABLE[(c ^ byte) & 0xFF] ^ (c >> 8)
    c ^= 0xFFFFFFFF
    return ((c >> 15 | c << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    """The payload of each record; raises ValueError where framing or a checksum is wrong."""
    at = 0
    while at < len(data):
        length, crc = struct.unpack_from("<QI", data, at)
        if crc != masked_crc32c(data[at:at + 8]):
            raise ValueError(f"wrong checksum of the length at byte {at}")
        payload = data[at + 12:at + 12 + length]
        if len(payload) != length or struct.unpack_from("<I", data, at + 12 + length)[0] != masked_crc32c(payload):
            raise ValueError(f"wrong checksum of the record at byte {at}")
        yield payload
        at += 16 + length


def fields(message):
    """[(number, value)] of a protocol buffer; numbers as they are in memory, bytes as bytes."""
    at, out = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            value = varint()
        elif key & 7 == 1:
            value, at = struct.unpack_from("<d", message, at)[0], at + 8
        elif key & 7 == 5:
            value, at = struct.unpack_from("<f", message, at)[0], at + 4
        elif key & 7 == 2:
            length = varint()
            value, at = message[at:at + length], at + length
        else:
            raise ValueError(f"wire type {key & 7}")
        out.append((key >> 3, value))
    return out


def event(message):
    """{"time", "step", "version", "scalars"} of an Event message."""
    of = dict(fields(message))
    scalars = {}
    for number, value in fields(of.get(5, b"")):
        assert number == 1, number
        scalar = dict(fields(value))
        assert set(scalar) == {1, 2}, scalar
        scalars[scalar[1].decode()] = scalar[2]
    return {"time": of[1], "step": of.get(2, 0), "version": of.get(3, b"").decode(), "scalars": scalars}


def read_directory(directory):
    """The events of all files of a run, in the order in which TensorBoard takes them."""
    out = []
    for name in sorted(n for n in os.listdir(directory) if "tfevents" in n):
        with open(os.path.join(directory, name), "rb") as file:
            events = [event(record) for record in records(file.read())]
        if not events or events[0]["version"] != "brain.Event:2":
            raise ValueError(f"{name} does not begin with its version")
        out += events[1:]
    return out
