"""A TCP proxy that holds every byte back for a while, as a long line does. `python -m tests.bench.delay HOST PORT`.

Prints its own port. A process of its own, and asynchronous, so that it is not what is measured.
"""

from __future__ import annotations

import asyncio
import sys

ONE_WAY_SECONDS = 0.010


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, each piece after its delay, however much is on its way."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)

    async def send() -> None:
        while True:
            due, piece = await pieces.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        writer.close()

    sending = asyncio.create_task(send())
    try:
        while piece := await reader.read(1 << 16):
            await pieces.put((loop.time() + ONE_WAY_SECONDS, piece))
    except OSError:
        pass
    await pieces.put((loop.time() + ONE_WAY_SECONDS, b""))
    await asyncio.gather(sending, return_exceptions=True)


async def _serve(host: str, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * ONE_WAY_SECONDS)  # the handshake
        upstream = await asyncio.open_connection(host, port)
        await asyncio.gather(_pass(reader, upstream[1]), _pass(upstream[0], writer), return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
