"""Puts a registry some milliseconds away, as ECR is: the one on loopback behind a relay that waits."""

import asyncio
import contextlib
import copy
import threading
from collections.abc import Iterator

from benches.pulls import free_address
from local.ecr.registry import Registry

CHUNK = 256 << 10


@contextlib.contextmanager
def away(registry: Registry, milliseconds: float) -> Iterator[Registry]:
    """Runs a relay whose round trip takes so long, and gives the registry as nodes find it behind that."""
    distant = copy.copy(registry)
    distant.address = free_address()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection(registry.address, 443)
        await asyncio.gather(later(reader, back, milliseconds / 2000), later(onward, writer, milliseconds / 2000))

    try:
        serving = asyncio.start_server(relay, distant.address, 443, limit=CHUNK)
        asyncio.run_coroutine_threadsafe(serving, loop).result()
        yield distant
    finally:
        asyncio.run_coroutine_threadsafe(end_relays(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def end_relays() -> None:
    """Ends all that still goes on beside this."""
    relays = asyncio.all_tasks() - {asyncio.current_task()}
    for relay in relays:
        relay.cancel()
    await asyncio.gather(*relays, return_exceptions=True)


async def later(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seconds: float) -> None:
    """Passes on what comes, each piece so much later, and the end after it."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while piece := await source.read(CHUNK):
            loop.call_later(seconds, sink.write, piece)
    loop.call_later(seconds, sink.close)
