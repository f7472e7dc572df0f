"""Graceful shutdown: SIGTERM stops the server, and no value that a client was told is accepted gets lost.

Cancelling `serve` stops accepting and cancels the handlers; leaving `async with listen` waits (at most
`Config.close_timeout`) until every session is over. The first client leaves at once after its last send, and what it
sent is received all the same; the second is still there when the signal comes.
"""

import asyncio, os, signal
import netchan

async def main():
    key = netchan.Identity.generate()

    async def add(peer):
        total = 0
        try:
            async for n in peer.open("numbers", int):
                total += n
            print("a client has left; its sum is", total)
        except asyncio.CancelledError:
            print("a client is told to go; its sum is", total)
            raise

    async with netchan.listen("tcp://127.0.0.1:0", trust=[key.node_id]) as listener:
        server = asyncio.create_task(listener.serve(add))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.cancel)

        async with netchan.dial(listener.addresses[0], identity=key) as peer:
            numbers = peer.open("numbers", int)
            await numbers.send_many(range(1001))
        # out: leaving has sent the rest, and the end behind it

        peer = await netchan.dial(listener.addresses[0], identity=key)
        numbers = peer.open("numbers", int)
        await numbers.deliver(5)                        # returns when the handler's loop has taken it
        os.kill(os.getpid(), signal.SIGTERM)            # what systemd, Docker or you would do
        try:
            await server
        except asyncio.CancelledError:
            print("the server has stopped")
        try:
            await numbers.send(6)
        except netchan.ChannelError as error:
            print("the second client gets", type(error).__name__)
        await peer.aclose()
    print("every session is over")

asyncio.run(main())
