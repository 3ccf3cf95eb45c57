#!/usr/bin/env python3
# A stand-in for mongodump, which no package of Debian has. It connects nowhere: it reads the address from the file that
# --config names, and writes an archive to standard output as common/archive/spec.md of the MongoDB tools and
# common/archive/multiplexer.go have it: magic number, prelude, blocks of documents of several collections in turns, and
# for each collection a header with EOF and the CRC-64 (ECMA) of its documents. What it does not know of the real one:
# every option but these two, its messages, and how it reads a server.
#
# MONGODUMP_FAULT makes it fail as the real one may: `cut:N` ends the output before the last N bytes, `no-end:NAME` leaves
# out the end of a collection, `crc:NAME` writes another checksum, each with exit status 0; `exit` ends with 1 although
# the archive is whole; `auth` refuses the user; `hang` prints half and waits.
# MONGODUMP_ROWS is the number of documents; MONGODUMP_SEEN a file for the address that it was given.
import json
import os
import struct
import sys
import time

POLY = 0xC96C5795D7870F42
TABLE = []
for byte in range(256):
    value = byte
    for _ in range(8):
        value = (value >> 1) ^ POLY if value & 1 else value >> 1
    TABLE.append(value)
TERMINATOR = b"\xff\xff\xff\xff"


def crc64(data, crc=0):
    crc ^= 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFFFFFFFFFF


def document(**fields):
    body = b""
    for name, value in fields.items():
        key = name.encode() + b"\0"
        if isinstance(value, bool):
            body += b"\x08" + key + bytes([value])
        elif isinstance(value, int):
            body += b"\x12" + key + struct.pack("<q", value)
        else:
            text = value.encode() + b"\0"
            body += b"\x02" + key + struct.pack("<i", len(text)) + text
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def signed(value):
    return value - (1 << 64) if value >= 1 << 63 else value


def main():
    if "--version" in sys.argv:
        print("mongodump version: 100.9.4\ngit version: stand-in")
        return 0
    config = next(a.split("=", 1)[1] for a in sys.argv if a.startswith("--config="))
    with open(config) as file:
        uri = json.loads(file.read().split("uri: ", 1)[1])
    if "MONGODUMP_SEEN" in os.environ:
        with open(os.environ["MONGODUMP_SEEN"], "a") as seen:
            seen.write(uri + "\n")
    fault, _, argument = os.environ.get("MONGODUMP_FAULT", "").partition(":")
    if fault == "auth":
        print(f"Failed: can't create session: {uri}: AuthenticationFailed", file=sys.stderr)
        return 1
    rows = int(os.environ.get("MONGODUMP_ROWS", "200"))
    names = ["orders", "people"]
    out = [struct.pack("<I", 0x8199E26D), document(concurrent_collections=4, version="0.1", server_version="4.0.28",
                                                   tool_version="100.9.4")]
    for name in names + ["empty"]:
        out.append(document(db="shop", collection=name, metadata="{\"options\":{}}", size=0, type="collection"))
    out.append(document(db="shop", collection="seen", metadata="{}", size=0, type="view"))
    out.append(TERMINATOR)
    crcs = {name: 0 for name in names + ["empty"]}
    for start in range(0, rows, 50):
        for name in names:
            docs = b"".join(document(n=n, text="x" * (n % 97)) for n in range(start, min(rows, start + 50)))
            crcs[name] = crc64(docs, crcs[name])
            out += [document(db="shop", collection=name, EOF=False, CRC=0), docs, TERMINATOR]
    for name, crc in crcs.items():
        if (fault, argument) == ("crc", name):
            crc ^= 1
        if (fault, argument) != ("no-end", name):
            out += [document(db="shop", collection=name, EOF=True, CRC=signed(crc)), TERMINATOR]
    archive = b"".join(out)
    if fault == "cut":
        archive = archive[: -int(argument)]
    stdout = sys.stdout.buffer
    if fault == "hang":
        stdout.write(archive[: len(archive) // 2])
        stdout.flush()
        time.sleep(600)
    stdout.write(archive)
    stdout.flush()
    if fault == "exit":
        print("Failed: error writing data for collection", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
