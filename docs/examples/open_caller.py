#!/usr/bin/env python3
"""Opens the sealed caller of a push: python3 open_caller.py TENANT INSTANCE CALL CALLER < private.key

private.key is the device's X25519 private key, 32 bytes in base64url. Prints the JSON that was sealed.

RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, from the standard library alone, so that
every step can be read. It takes no care to run in constant time: use CryptoKit, Tink or Bouncy Castle in an app.
"""

import base64
import hashlib
import hmac
import json
import struct
import sys

PRIME = 2**255 - 19
KEM = b"KEM" + struct.pack(">H", 0x0020)
SUITE = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0003)


def x25519(scalar: bytes, point: bytes) -> bytes:
    """RFC 7748 section 5."""
    k = int.from_bytes(scalar, "little") & ~7 & ~(1 << 255) | (1 << 254)
    u = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in reversed(range(255)):
        if swap := (k >> bit) & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a % PRIME, c * b % PRIME, a * a % PRIME, b * b % PRIME
        x3, z3 = (da + cb) ** 2 % PRIME, u * (da - cb) ** 2 % PRIME
        e = aa - bb
        x2, z2 = aa * bb % PRIME, e * (aa + 121665 * e) % PRIME
        if swap:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")


def extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + key, hashlib.sha256)


def expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    # One block of HKDF-Expand is as much as is ever needed here.
    labeled = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labeled + b"\x01", hashlib.sha256)[:length]


def chacha20(key: bytes, counter: int, nonce: bytes) -> bytes:
    """RFC 8439 section 2.3: one block of key stream."""
    start = struct.unpack("<4I", b"expand 32-byte k") + struct.unpack("<8I", key) + (counter,) + struct.unpack("<3I", nonce)
    state = list(start)

    def turn(a, b, c, d):
        for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            word = state[z] ^ state[x]
            state[z] = (word << by | word >> (32 - by)) & 0xFFFFFFFF

    for _ in range(10):
        for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
            turn(a, b, c, d)
        for a, b, c, d in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            turn(a, b, c, d)
    return struct.pack("<16I", *((x + y) & 0xFFFFFFFF for x, y in zip(state, start)))


def poly1305(key: bytes, text: bytes) -> bytes:
    """RFC 8439 section 2.5, for texts of whole blocks."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    tag = 0
    for at in range(0, len(text), 16):
        tag = (tag + int.from_bytes(text[at : at + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((tag + int.from_bytes(key[16:], "little")) & (2**128 - 1)).to_bytes(16, "little")


def aead_open(key: bytes, nonce: bytes, sealed: bytes) -> bytes:
    """RFC 8439 section 2.8, without associated data."""
    text, tag = sealed[:-16], sealed[-16:]
    padded = text + bytes(-len(text) % 16) + struct.pack("<QQ", 0, len(text))
    if not hmac.compare_digest(tag, poly1305(chacha20(key, 0, nonce)[:32], padded)):
        raise ValueError("not sealed for this key, tenant, instance and call")
    stream = b"".join(chacha20(key, 1 + at // 64, nonce) for at in range(0, len(text), 64))
    return bytes(a ^ b for a, b in zip(text, stream))


def open_caller(private: bytes, tenant: str, instance: str, call: str, caller: bytes) -> bytes:
    encapsulated, sealed = caller[:32], caller[32:]
    info = f"reveille caller v1\n{tenant}\n{instance}\n{call}".encode()
    public = x25519(private, (9).to_bytes(32, "little"))
    shared = extract(KEM, b"", b"eae_prk", x25519(private, encapsulated))
    shared = expand(KEM, shared, b"shared_secret", encapsulated + public, 32)
    context = b"\x00" + extract(SUITE, b"", b"psk_id_hash", b"") + extract(SUITE, b"", b"info_hash", info)
    secret = extract(SUITE, shared, b"secret", b"")
    return aead_open(expand(SUITE, secret, b"key", context, 32), expand(SUITE, secret, b"base_nonce", context, 12), sealed)


def base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    tenant, instance, call, caller = sys.argv[1:]
    plain = open_caller(base64url(sys.stdin.read().strip()), tenant, instance, call, base64url(caller))
    print(json.dumps(json.loads(plain)))
