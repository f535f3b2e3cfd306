#!/usr/bin/env python3
"""Prints the pattern of a request for a scraper certificate with a common name.

A second implementation, to hold the one in Go to. It knows requests of 256 bytes and
more alone.

usage: pin.py COMMON_NAME
"""
import sys

ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
PRINTABLE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?"
KEY = "3059301306072a8648ce3d020106082a8648ce3d03010703420004"


def tlv(tag, value):
    assert len(value) < 128
    return bytes([tag, len(value)]) + value


def subject(name):
    tag = 0x13 if all(c in PRINTABLE for c in name) else 0x0C
    return tlv(0x30, tlv(0x31, tlv(0x30, bytes([6, 3, 0x55, 4, 3]) + tlv(tag, name))))


def base64(sets):
    """Sets of bytes in, sets of characters out: 24 bits are four of 6 each."""
    out = []
    for i in range(0, len(sets) - len(sets) % 3, 3):
        one, two, three = sets[i:i + 3]
        out.append({ALPHABET[a // 4] for a in one})
        out.append({ALPHABET[a % 4 * 16 + b // 16] for a in one for b in two})
        out.append({ALPHABET[b % 16 * 4 + c // 64] for b in two for c in three})
        out.append({ALPHABET[c % 64] for c in three})
    return out


def write(characters):
    text = "".join(map(chr, sorted(characters)))
    if len(text) == 64:
        return "."
    return text if len(text) == 1 and text not in "+/" else "[" + text + "]"


def pattern(head, fixed):
    der = [set(range(256)) if b is None else {b} for b in head] + [{b} for b in fixed]
    text = [{b} for b in b"-----BEGIN CERTIFICATE REQUEST-----\n"]
    for i, characters in enumerate(base64(der)):
        text += [{10}] if i and i % 64 == 0 else []
        text.append(characters)
    return "".join(map(write, base64(text)))


fixed = b"\x02\x01\x00" + subject(sys.argv[1].encode()) + bytes.fromhex(KEY)
heads = [[0x30, 0x82, None, None, 0x30, 0x81, None], [0x30, 0x82, None, None, 0x30, 0x82, None, None]]
print("^(" + "|".join(pattern(head, fixed) for head in heads) + ")")
