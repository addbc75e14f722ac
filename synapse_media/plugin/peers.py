"""Whose the other end of a loopback connection is: any account of a machine can connect to any port on loopback."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
"""The sockets of this network namespace. https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html

A client that connects through an IPv6 socket (to ::ffff:127.0.0.1) is in the second alone.
"""
_ESTABLISHED: Final = "01"
_TRIES: Final = 4
_PEER: Final = re.compile(r"ipv4:([\d.]+):(\d+)")


def refusal(peer: str, port: int) -> str:
    """Why a call is refused; "" if the process at the other end is of this account, or the system does not tell.

    It is looked up anew for every call: a connection that ended leaves its port number to whoever takes it next, and
    nothing tells a server of gRPC which connection a call came in on. It costs about a millisecond.

    Args:
        peer: as gRPC names it, "ipv4:127.0.0.1:50512".
        port: the one that is served, on 127.0.0.1.
    """
    if not TABLES[0].exists():
        return ""
    found = _PEER.fullmatch(peer)
    owner = _owner(ipaddress.IPv4Address(found[1]), int(found[2]), port) if found else None
    if owner is None:
        return f"nothing tells which account the caller at {peer} is of"
    if owner != os.geteuid():
        return f"the caller is of another account of this machine (uid {owner}), and only uid {os.geteuid()} is served"
    return ""


def _owner(address: ipaddress.IPv4Address, port: int, served: int) -> int | None:
    """The uid that opened the socket at `address`:`port` which is connected to us at `served`; None: there is none."""
    ours = _addresses(ipaddress.IPv4Address("127.0.0.1"), served)
    theirs = _addresses(address, port)
    for attempt in range(_TRIES):
        # The table is read in parts, between which a line may move to a place that was passed already.
        time.sleep(0.01 * attempt)
        for local, remote, state, uid, inode in _lines():
            # One that was closed belongs to nobody any more: the table says uid 0, inode 0.
            if local in theirs and remote in ours and state == _ESTABLISHED and inode != "0":
                return int(uid)
    return None


def _lines() -> Iterator[tuple[str, str, str, str, str]]:
    """(local address, remote address, state, uid, inode) of each socket."""
    for table in TABLES:
        try:
            text = table.read_text(encoding="ascii")
        except FileNotFoundError:
            continue  # a kernel without IPv6
        for line in text.splitlines()[1:]:
            fields = line.split()
            yield fields[1], fields[2], fields[3], fields[7], fields[9]


def _addresses(address: ipaddress.IPv4Address, port: int) -> tuple[str, str]:
    """As the two tables write it: each 32 bits of the address as a number of this machine's byte order."""
    mapped = ipaddress.IPv6Address(f"::ffff:{address}").packed
    words = [f"{int.from_bytes(mapped[at : at + 4], sys.byteorder):08X}" for at in range(0, 16, 4)]
    return f"{words[3]}:{port:04X}", f"{''.join(words)}:{port:04X}"
