"""Parse, inspect and restrict Storj access grants, offline and without the vendor's command.

A grant is base58check(version 0, protobuf {1 satellite address, 2 API key, 3 encryption access}); the API key is a
macaroon (format 2), whose caveats each restrict it further. The results equal those of the vendor's library byte for
byte (storj.io/uplink 1.14.5, `Access.Share`); tests/storj has the vectors. Wire format: storj.io/common,
macaroon/types.proto and grant/internal/pb.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from synapse_media.errors import StoreError

PERMISSIONS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "reads": 1,
        "writes": 2,
        "lists": 3,
        "deletes": 4,
        "locks": 5,
        "put_retention": 6,
        "get_retention": 7,
        "put_legal_hold": 8,
        "get_legal_hold": 9,
        "bypass_governance_retention": 11,
        "put_bucket_object_lock_configuration": 12,
        "get_bucket_object_lock_configuration": 13,
        "put_bucket_notification_configuration": 14,
        "get_bucket_notification_configuration": 15,
    }
)
"""Every permission, and the number of its caveat field `disallow_<name>`. A permission that is missing here could not
be forbidden, so a test compares this with the vendor's list."""

OBJECTS: Final = frozenset({"reads", "writes", "lists", "deletes"})
"""The permissions for storing objects: overwriting and aborting uploads need `deletes` too (uplink, multipart.go)."""

_PATHS, _NOT_AFTER, _NOT_BEFORE, _TTL, _NONCE = 10, 20, 21, 22, 30
FIELDS: Final = frozenset({*PERMISSIONS.values(), _PATHS, _NOT_AFTER, _NOT_BEFORE, _TTL, _NONCE})
"""The known fields of a caveat."""

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_AES_GCM: Final = 2


class GrantError(StoreError):
    """An invalid or insufficient grant. The message never contains any part of it."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """An encryption key of a grant, for a bucket or a part of it."""

    bucket: bytes
    key: bytes = field(repr=False)
    path: bytes = b""
    encrypted_path: bytes = b""
    cipher: int = 0

    def encode(self) -> bytes:
        texts = ((1, self.bucket), (2, self.path), (3, self.encrypted_path), (4, self.key))
        return b"".join(_bytes(number, value) for number, value in texts) + _number(5, self.cipher)


@dataclass(frozen=True, slots=True)
class _Caveat:
    """The restrictions of one caveat. `paths`: the allowed pairs of bucket and encrypted prefix; None: any."""

    forbids: frozenset[str]
    paths: tuple[tuple[bytes, bytes], ...] | None
    not_after: float | None
    not_before: float | None
    limits_objects: bool
    unknown: frozenset[int]


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant. Every field but the satellite's address is secret."""

    satellite: str
    head: bytes = field(repr=False)
    caveats: tuple[bytes, ...] = field(repr=False)
    tail: bytes = field(repr=False)
    root_key: bytes = field(repr=False)
    entries: tuple[_Entry, ...] = field(repr=False)
    cipher: int = _AES_GCM

    # ---- inspection

    @property
    def forbidden(self) -> frozenset[str]:
        """The permissions that it lacks."""
        return frozenset().union(*(caveat.forbids for caveat in self._read()))

    @property
    def not_after(self) -> datetime | None:
        """When it expires (UTC); None: never."""
        ends = [caveat.not_after for caveat in self._read() if caveat.not_after is not None]
        return datetime.fromtimestamp(min(ends), UTC) if ends else None

    @property
    def buckets(self) -> frozenset[str] | None:
        """The buckets to which it gives full access; None: all of the project."""
        groups = [
            {bucket.decode(errors="replace") for bucket, prefix in caveat.paths if not prefix}
            for caveat in self._read()
            if caveat.paths is not None
        ]
        return frozenset(set.intersection(*groups)) if groups else None

    @property
    def unknown_fields(self) -> frozenset[int]:
        """Unknown fields in its caveats, which the vendor added since."""
        return frozenset().union(*(caveat.unknown for caveat in self._read()))

    def holds_key(self, bucket: str) -> bool:
        """Whether it can decrypt everything in this bucket."""
        return bool(self.root_key) or any(_is_whole(entry, bucket) for entry in self.entries)

    def fingerprint(self, bucket: str) -> str:
        """Of the key that decrypts this bucket, which `holds_key`: the same for every grant of one project and
        passphrase, and for no other."""
        return hashlib.sha256(b"synapse-media\0" + self._entry(bucket).key).hexdigest()[:16]

    def fault(self, bucket: str, needed: Collection[str], now: datetime) -> str:
        """Why it can't give `needed` on the whole of `bucket`; "" if it can."""
        ends, starts = self.not_after, [c.not_before for c in self._read() if c.not_before is not None]
        if ends is not None and ends <= now:
            return f"it expired at {ends:%Y-%m-%d %H:%M} UTC"
        if ends is not None and (ends - now).total_seconds() < 60:
            return "it expires within a minute, too soon to register it"
        if starts and max(starts) > now.timestamp():
            return f"it is not valid before {datetime.fromtimestamp(max(starts), UTC):%Y-%m-%d %H:%M} UTC"
        if self.buckets is not None and bucket not in self.buckets:
            named = ", ".join(sorted(self.buckets)) or "no bucket as a whole"
            return f"it does not reach the whole bucket {bucket!r} (it reaches {named})"
        if not self.holds_key(bucket):
            return f"it holds no encryption key for the whole bucket {bucket!r}"
        lacking = sorted(frozenset(needed) & self.forbidden)
        if lacking:
            return f"it forbids {', '.join(lacking)}"
        if any(caveat.limits_objects for caveat in self._read()):
            return "it limits how long objects live (max_object_ttl): media would be deleted by age"
        return ""

    def _read(self) -> list[_Caveat]:
        return [_caveat(raw) for raw in self.caveats]

    # ---- restriction

    def restricted(
        self,
        buckets: Iterable[str],
        allow: Collection[str] = OBJECTS,
        not_after: datetime | None = None,
        nonce: bytes | None = None,
    ) -> Grant:
        """A grant for these buckets alone, with these permissions of PERMISSIONS and no other.

        Args:
            not_after: its expiry, to the second.
            nonce: 4 bytes that make equal restrictions distinct; None: random.

        Raises GrantError if it has no encryption key for one of the buckets.
        """
        names = sorted(set(buckets))
        without = [name for name in names if not self.holds_key(name)]
        if without or not names:
            raise GrantError(f"the access grant holds no encryption key for the whole of {', '.join(without) or '?'}")
        bare = {number: b"" for name, number in PERMISSIONS.items() if name not in allow}
        parts = [_number(number, 1) for number in bare if number < _PATHS]
        parts += [_bytes(_PATHS, _bytes(1, name.encode()), always=True) for name in names]
        parts += [_number(number, 1) for number in bare if number > _PATHS]
        if not_after is not None:
            parts.append(_bytes(_NOT_AFTER, _number(1, int(not_after.timestamp()))))
        parts.append(_bytes(_NONCE, secrets.token_bytes(4) if nonce is None else nonce))
        caveat = b"".join(parts)
        return replace(
            self,
            caveats=(*self.caveats, caveat),
            tail=hmac.digest(self.tail, caveat, "sha256"),
            root_key=b"",
            entries=tuple(self._entry(name) for name in names),
        )

    def _entry(self, bucket: str) -> _Entry:
        """The key of a bucket alone: one that it has, or derived (storj.io/common, encryption/path.go)."""
        for entry in self.entries:
            if _is_whole(entry, bucket):
                return entry
        key = hmac.digest(self.root_key, b"path:" + bucket.encode(), "sha512")[:32]
        return _Entry(bucket.encode(), key, cipher=self.cipher)

    def serialize(self) -> str:
        """The text form, which is a secret."""
        macaroon = b"\x02" + _packet(2, self.head) + b"\0"
        macaroon += b"".join(_packet(2, caveat) + b"\0" for caveat in self.caveats) + b"\0" + _packet(6, self.tail)
        encryption = _bytes(1, self.root_key)
        encryption += b"".join(_bytes(2, entry.encode(), always=True) for entry in self.entries)
        encryption += _number(3, self.cipher)
        return _base58(_bytes(1, self.satellite.encode()) + _bytes(2, macaroon) + _bytes(3, encryption))


def parse(text: str) -> Grant:
    """Parse the text form. Raises GrantError with the reason, and without any of the text."""
    raw = _from_base58(text.strip())
    if raw[:1] == b"\x02":
        raise GrantError(
            "this is an API key without its encryption: an access grant is needed. Create one in the console (Access "
            "Keys, New, Access Grant) or with `uplink access create`"
        )
    try:
        scope = _fields(raw)
        satellite = _last(scope, 1).decode()
        head, caveats, tail = _macaroon(_last(scope, 2))
        access = _fields(_last(scope, 3))
        entries = tuple(_read_entry(value) for number, value in access if number == 2 and isinstance(value, bytes))
        root_key = _last(access, 1)
        cipher = _last_number(access, 3) or _AES_GCM
        for caveat in caveats:
            _caveat(caveat)
    except (ValueError, IndexError, OverflowError, OSError):
        raise GrantError("this is not an access grant, or a damaged one") from None
    if len(root_key) not in (0, 32) or any(len(entry.key) != 32 for entry in entries):
        raise GrantError("the access grant holds an encryption key of the wrong length: it is damaged")
    node, at, address = satellite.rpartition("@")
    if not at or not address or not _is_node(node):
        raise GrantError(
            f"the access grant's satellite is {satellite[:100]!r}, without a node ID (ID@host:port): the vendor's own "
            "tools reject it too. Create a new one in the console"
        )
    return Grant(satellite, head, caveats, tail, root_key, entries, cipher)


# ---- caveats


def _caveat(raw: bytes) -> _Caveat:
    found = _fields(raw)
    names = {number: name for name, number in PERMISSIONS.items()}
    paths = [_fields(value) for number, value in found if number == _PATHS and isinstance(value, bytes)]
    return _Caveat(
        forbids=frozenset(names[number] for number, value in found if number in names and value),
        paths=tuple((_last(path, 1), _last(path, 2)) for path in paths) or None,
        not_after=_seconds(found, _NOT_AFTER),
        not_before=_seconds(found, _NOT_BEFORE),
        limits_objects=any(number == _TTL for number, _ in found),
        unknown=frozenset(number for number, _ in found) - FIELDS,
    )


def _seconds(fields: list[tuple[int, int | bytes]], number: int) -> float | None:
    stamps = [value for found, value in fields if found == number and isinstance(value, bytes)]
    if not stamps:
        return None
    stamp = _fields(stamps[-1])
    # Nanoseconds are cut off: a grant expires slightly early rather than late.
    seconds = _last_number(stamp, 1)
    datetime.fromtimestamp(seconds, UTC)  # ValueError for what no clock can show
    return float(seconds)


def _read_entry(raw: bytes) -> _Entry:
    fields = _fields(raw)
    bucket, path, encrypted_path, key = (_last(fields, number) for number in (1, 2, 3, 4))
    return _Entry(bucket, key, path, encrypted_path, _last_number(fields, 5))


def _is_whole(entry: _Entry, bucket: str) -> bool:
    return entry.bucket == bucket.encode() and not entry.path and not entry.encrypted_path


# ---- macaroon, format 2: sections of packets (type, length, data), each section ended by a zero


def _packet(kind: int, data: bytes) -> bytes:
    return _varint(kind) + _varint(len(data)) + data


def _macaroon(raw: bytes) -> tuple[bytes, tuple[bytes, ...], bytes]:
    """(head, caveats, tail)"""
    if raw[:1] != b"\x02":
        raise ValueError(raw[:1])
    rest = iter(raw[1:])
    sections: list[list[tuple[int, bytes]]] = []
    while not sections or sections[-1]:
        packets = []
        while kind := _read_varint(rest):
            packets.append((kind, _take(rest, _read_varint(rest))))
        sections.append([packet for packet in packets if packet[0] != 1])
    head, *caveats = ([data for kind, data in section if kind == 2] for section in sections[:-1])
    kind, tail = _read_varint(rest), _take(rest, _read_varint(rest))
    if kind != 6 or len(tail) != 32 or len(head) != 1 or any(len(caveat) != 1 for caveat in caveats):
        raise ValueError(kind)
    return head[0], tuple(caveat[0] for caveat in caveats), tail


# ---- protobuf wire format: https://protobuf.dev/programming-guides/encoding/


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""


def _bytes(number: int, value: bytes, *, always: bool = False) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value if value or always else b""


def _read_varint(data: Iterator[int]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = next(data, None)
        if byte is None:
            raise ValueError("truncated")
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise ValueError("varint")


def _take(data: Iterator[int], length: int) -> bytes:
    taken = bytes(itertools.islice(data, length))
    if len(taken) != length:
        raise ValueError("truncated")
    return taken


def _fields(raw: bytes) -> list[tuple[int, int | bytes]]:
    data = iter(raw)
    found: list[tuple[int, int | bytes]] = []
    while (first := next(data, None)) is not None:
        tag = _read_varint(itertools.chain([first], data))
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            found.append((number, _read_varint(data)))
        elif kind in (1, 2, 5):
            found.append((number, _take(data, {1: 8, 5: 4}.get(kind) or _read_varint(data))))
        else:
            raise ValueError(kind)
    return found


def _last(fields: list[tuple[int, int | bytes]], number: int) -> bytes:
    return next((value for found, value in reversed(fields) if found == number and isinstance(value, bytes)), b"")


def _last_number(fields: list[tuple[int, int | bytes]], number: int) -> int:
    return next((value for found, value in reversed(fields) if found == number and isinstance(value, int)), 0)


# ---- base58check, version 0


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()[:4]


def _base58(payload: bytes) -> str:
    data = b"\0" + payload
    data += _checksum(data)
    value, digits = int.from_bytes(data, "big"), []
    while value:
        value, digit = divmod(value, 58)
        digits.append(_ALPHABET[digit])
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + "".join(reversed(digits))


def _decoded(text: str) -> bytes:
    """Decode base58check, with the version first. Raises ValueError for an invalid character or a wrong checksum."""
    value = 0
    for character in text:
        value = value * 58 + _ALPHABET.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    data = b"\0" * zeros + value.to_bytes((value.bit_length() + 7) // 8, "big")
    if len(data) < 6 or _checksum(data[:-4]) != data[-4:]:
        raise ValueError("checksum")
    return data[:-4]


def _from_base58(text: str) -> bytes:
    if len(text) > 10_000 or any(character not in _ALPHABET for character in text) or len(text) < 20:
        raise GrantError(
            f"{len(text)} characters, but not an access grant, which is one long string of letters and digits "
            "beginning with 1. It is not the passphrase, the API key or the S3 key pair"
        )
    try:
        data = _decoded(text)
    except ValueError:
        raise GrantError(
            f"{len(text)} characters whose checksum is wrong: part of the access grant is missing or mistyped. Copy "
            "all of it again"
        ) from None
    if data[0]:
        raise GrantError(f"this has version {data[0]}, but an access grant has version 0")
    return data[1:]


def _is_node(text: str) -> bool:
    try:
        return len(_decoded(text)) == 33
    except ValueError:
        return False
