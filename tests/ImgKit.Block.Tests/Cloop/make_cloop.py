#!/usr/bin/env python3
"""A second implementation of compressed loop images, to test the first: make_cloop.py LAYOUT COMPRESSOR BLOCK_SIZE RAW OUT

LAYOUT: 0.68 1.0 2.0 knoppix 3.0 4.0 4.0-footer uzip uzip-dedup
COMPRESSOR: zlib none xz lz4 lzo zstd mix (4.0: each block another way)
RAW is filled up with zeroes to a whole number of blocks. Needs liblz4, liblzo2 and libzstd, which it calls directly.
"""
import ctypes
import lzma
import struct
import sys
import zlib


def lz4(data):
    lib = ctypes.CDLL("liblz4.so.1")
    out = ctypes.create_string_buffer(len(data) + len(data) // 255 + 64)
    n = lib.LZ4_compress_default(data, out, len(data), len(out))
    assert n > 0
    return out.raw[:n]


def lzo(data):
    lib = ctypes.CDLL("liblzo2.so.2")
    out = ctypes.create_string_buffer(len(data) + len(data) // 16 + 128)
    work = ctypes.create_string_buffer(14 * 16384 * 8)
    n = ctypes.c_size_t(0)
    assert lib.lzo1x_999_compress(data, ctypes.c_size_t(len(data)), out, ctypes.byref(n), work) == 0
    return out.raw[:n.value]


def zstd(data):
    lib = ctypes.CDLL("libzstd.so.1")
    lib.ZSTD_compress.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(len(data) * 2 + 1024)
    n = lib.ZSTD_compress(out, ctypes.c_size_t(len(out)), data, ctypes.c_size_t(len(data)), 3)
    return out.raw[:n]


PACK = {
    "zlib": lambda d: zlib.compress(d, 9),
    "none": lambda d: d,
    "xz": lambda d: lzma.compress(d, check=lzma.CHECK_CRC32),
    "lz4": lz4,
    "lzo": lzo,
    "zstd": zstd,
}
CODES = ["zlib", "none", "xz", "lz4", "lzo"]
UZIP = {"zlib": b"#V2.0 Format\nm=geom_uzip\n(kldstat -qm $m 2>&-||kldload $m)>&-&&mount_cd9660 /dev/`mdconfig -af $0`.uzip $1\nexit $?\n",
        "xz": b"#L3.0\nm=geom_uzip\n", "zstd": b"#Z4.0\nm=geom_uzip\n"}


def header(preamble, block_size, blocks):
    return preamble.ljust(128, b"\0") + struct.pack(">II", block_size, blocks)


def main():
    layout, how, block_size, raw, out = sys.argv[1:]
    block_size = int(block_size)
    data = open(raw, "rb").read()
    data += bytes(-len(data) % block_size)
    blocks = [data[i:i + block_size] for i in range(0, len(data), block_size)]
    n = len(blocks)
    ways = [CODES[i % 5] if how == "mix" else how for i in range(n)]
    if layout.startswith("uzip"):
        letter = UZIP[how]
        if layout == "uzip-dedup":
            letter = letter.replace(b"#V", b"#v").replace(b"#L", b"#l").replace(b"#Z", b"#z")
        at = 136 + 8 * (n + 1)
        index, body, seen = [], b"", {}
        for i, b in enumerate(blocks):
            if layout == "uzip-dedup" and not any(b):
                index.append(at)                # missing: the next starts here, too
                continue
            if layout == "uzip-dedup" and b in seen and i > 0 and index[-1] != seen[b]:
                index.append(seen[b])           # points back
                continue
            p = PACK[how](b)
            seen.setdefault(b, at)
            index.append(at)
            body += p
            at += len(p)
        index.append(at)
        body += bytes(-len(body) % 512)
        content = header(b"#!/bin/sh\n" + letter, block_size, n) + struct.pack(">%dQ" % (n + 1), *index) + body
    else:
        packed = [PACK[w](b) for w, b in zip(ways, blocks)]
        base = {"0.68": 136 + 4 * (n + 1), "1.0": 136 + 8 * (n + 1), "2.0": 136 + 8 * (n + 1), "4.0": 136 + 8 * (n + 1),
                "knoppix": 136 + 16 * n, "3.0": 136, "4.0-footer": 0}[layout]
        offsets = [base]
        for p in packed:
            offsets.append(offsets[-1] + len(p))
        body = b"".join(packed)
        tagged = [o | (CODES.index(w) << 60) for o, w in zip(offsets, ways)] + offsets[-1:]
        old = b"#!/bin/sh\n#V%s Format\ninsmod cloop.o file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n"
        modern = b"#!/bin/sh\n#V%s Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
        if layout == "0.68":
            content = header(old % b"0.68", block_size, n) + struct.pack(">%dI" % (n + 1), *offsets) + body
        elif layout == "1.0":
            content = header(old % b"1.0", block_size, n) + struct.pack("<%dQ" % (n + 1), *offsets) + body
        elif layout == "2.0":
            content = header(old % b"2.0", block_size, n) + struct.pack(">%dQ" % (n + 1), *offsets) + body
        elif layout == "knoppix":
            entries = b"".join(struct.pack(">QII", o, len(p), i) for i, (o, p) in enumerate(zip(offsets, packed)))
            content = header(old % b"2.0", block_size, n) + entries + body
        elif layout == "3.0":
            content = header(old % b"3.0", block_size, 0xFFFFFFFF) + body + struct.pack(">%dI" % n, *map(len, packed)) + struct.pack(">II", 4, n)
        elif layout == "4.0":
            content = header(modern % b"4.0", block_size, n) + struct.pack(">%dQ" % (n + 1), *tagged) + body
        else:
            content = body + struct.pack(">%dQ" % (n + 1), *tagged) + header(modern % b"4.0", block_size, n)
    open(out, "wb").write(content)


main()
