"""A relay before a server on loopback: what passes arrives later.

It is a process of its own, so that neither client nor server pays for it in their own time.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK_BYTES = 1 << 16


@contextmanager
def run_slow_link(endpoint: str, delay_s: float) -> Iterator[str]:
    """Run a relay before a server; yield its address."""
    command = [sys.executable, "-m", "tests.support.slow_link", endpoint, str(delay_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            yield address
        finally:
            process.kill()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float
) -> None:
    """Pass on what comes, each part ``delay_s`` after it came; the parts stay in order."""
    loop = asyncio.get_running_loop()
    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        data = b"-"
        while data:
            due, data = await on_the_way.get()
            await asyncio.sleep(due - loop.time())
            if data:
                writer.write(data)
                await writer.drain()
        writer.write_eof()

    delivery = asyncio.create_task(deliver())
    data = b"-"
    while data:
        data = await reader.read(_CHUNK_BYTES)
        on_the_way.put_nowait((loop.time() + delay_s, data))
    await delivery


async def _serve(endpoint: str, delay_s: float) -> None:
    host, _, port = endpoint.rpartition(":")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        with suppress(OSError):  # one side is gone: so is the connection
            await asyncio.gather(
                _pass_on(reader, there_writer, delay_s),
                _pass_on(there_reader, writer, delay_s),
            )
        writer.close()
        there_writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    address, bound = server.sockets[0].getsockname()
    print(f"{address}:{bound}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.slow_link", description=__doc__)
    parser.add_argument("endpoint", help="host:port")
    parser.add_argument("delay_s", type=float)
    options = parser.parse_args()
    asyncio.run(_serve(options.endpoint, options.delay_s))


if __name__ == "__main__":
    main()
