"""Echo: a server that sends back whatever comes, on whatever channel a client opens.

`serve` runs a task per client. The client closes its direction and still hears the rest: the two directions of a
channel end independently.
"""

import asyncio, netchan

async def echo(peer):
    async with asyncio.TaskGroup() as tasks:
        async for channel in peer:                      # every channel that the other side opens
            tasks.create_task(answer(channel))

async def answer(channel):
    async with channel:                                 # leaving ends our direction, too
        async for value in channel:
            await channel.send(value)

async def main():
    client = netchan.Identity.generate()
    async with netchan.listen("tcp://127.0.0.1:0", trust=[client.node_id]) as listener:
        server = asyncio.create_task(listener.serve(echo))
        async with netchan.dial(listener.addresses[0], identity=client) as peer:
            for name in ("one", "two"):
                channel = peer.open(name)
                await channel.send_many([f"hello on {name}", 42, {"lists": [1, 2, 3]}])
                channel.close()                         # no more from us; what comes back can still be received
                async for value in channel:
                    print(name, value)
        server.cancel()

asyncio.run(main())
