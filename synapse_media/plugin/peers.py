"""Whose the other end of a loopback connection is: any account of a machine can connect to any port on loopback."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
"""The sockets of this network namespace. https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html

A client that connects through an IPv6 socket (to ::ffff:127.0.0.1) is in the second alone.
"""
_HERE: Final = ipaddress.IPv4Address("127.0.0.1")
_ESTABLISHED: Final = "01"
_TRIES: Final = 4
# https://man7.org/linux/man-pages/man7/sock_diag.7.html, and linux/inet_diag.h
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_HEADER: Final = 16
"""Bytes of a netlink message before its content."""
_ANY_STATE: Final = 0xFFFFFFFF
_ANY_INTERFACE: Final = bytes(4)
_NO_COOKIE: Final = b"\xff" * 8
_PEER: Final = re.compile(r"ipv4:([\d.]+):(\d+)")


def refusal(peer: str, port: int) -> str:
    """Why a call is refused; "" if the process at the other end is of this account, or the system does not tell.

    It is looked up anew for every call: a connection that ended leaves its port number to whoever takes it next, and
    nothing tells a server of gRPC which connection a call came in on. The kernel is asked for that one socket: the
    tables have every socket of the machine, and are read only where it does not answer.

    Args:
        peer: as gRPC names it, "ipv4:127.0.0.1:50512".
        port: the one that is served, on 127.0.0.1.
    """
    if not TABLES[0].exists():
        return ""
    found = _PEER.fullmatch(peer)
    owner = None
    if found:
        address, number = ipaddress.IPv4Address(found[1]), int(found[2])
        owner = _owner_by_query(address, number, port)
        if owner is None:
            owner = _owner_in_tables(address, number, port)
    if owner is None:
        return f"nothing tells which account the caller at {peer} is of"
    if owner != os.geteuid():
        return f"the caller is of another account of this machine (uid {owner}), and only uid {os.geteuid()} is served"
    return ""


def _owner_by_query(address: ipaddress.IPv4Address, port: int, served: int) -> int | None:
    """The uid that opened the socket at `address`:`port` which is connected to us at `served`.

    None: the kernel knows no such socket, or answers no such question.
    """
    here, there = _HERE.packed + bytes(12), address.packed + bytes(12)
    connection = struct.pack("!HH16s16s", port, served, there, here) + _ANY_INTERFACE + _NO_COOKIE
    request = struct.pack("=BBxxI", socket.AF_INET, socket.IPPROTO_TCP, _ANY_STATE) + connection
    header = struct.pack("=IHHII", _HEADER + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
            kernel.send(header + request)
            answer, (sender, _) = kernel.recvfrom(8192)
    except OSError:
        return None
    if sender or struct.unpack_from("=H", answer, 4)[0] != _SOCK_DIAG_BY_FAMILY:
        return None
    state, ports = answer[_HEADER + 1], answer[_HEADER + 4 : _HEADER + 8]
    uid, inode = struct.unpack_from("=II", answer, _HEADER + 64)
    # One that was closed belongs to nobody any more, and where there is none, the answer is the socket that listens.
    known = state == int(_ESTABLISHED) and ports == connection[:4] and inode
    return int(uid) if known else None


def _owner_in_tables(address: ipaddress.IPv4Address, port: int, served: int) -> int | None:
    """As `_owner_by_query`, of a kernel without that query (CONFIG_INET_DIAG)."""
    ours = _addresses(_HERE, served)
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
