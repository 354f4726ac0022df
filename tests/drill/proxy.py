"""Carries TCP connections to another port: one program, started with LISTEN:TARGET ports.

Whoever stops it (SIGSTOP) cuts the cable: both ends stay connected and hear nothing. Whoever
kills it shuts a door: new connections are refused.
"""

import asyncio
import sys
from contextlib import suppress

HOST = "127.0.0.1"


def main(pairs):
    asyncio.run(carry_all([tuple(map(int, pair.split(":"))) for pair in pairs]))


async def carry_all(pairs):
    for listen_port, target_port in pairs:
        await asyncio.start_server(carrier_to(target_port), HOST, listen_port, backlog=1024)
    print("carrying", flush=True)
    await asyncio.Event().wait()


def carrier_to(target_port):
    async def carry(client_reader, client_writer):
        try:
            reader, writer = await asyncio.open_connection(HOST, target_port)
        except OSError:
            # As near to a refusal as one can come who has accepted already.
            client_writer.transport.abort()
            return
        await asyncio.gather(copy(client_reader, writer), copy(reader, client_writer))

    return carry


async def copy(reader, writer):
    """Until one side ends; the other is then told so in order."""
    # A connection that breaks is news for the two ends, which see it themselves.
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1:])
