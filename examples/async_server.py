"""The asyncio half of a pair: keeps a running mean of each client's numbers. sync_client.py is the other half.

    python async_server.py CLIENT_NODE_ID       # prints the address; ends when the client has left
"""

import asyncio, sys
import netchan

async def main(client):
    me = netchan.Identity.load_or_create("server.key")
    async with netchan.listen("tcp://127.0.0.1:0", identity=me, trust=[client]) as listener:
        print(listener.addresses[0], flush=True)
        async with await listener.recv() as peer:
            numbers, means = peer.open("numbers", float), peer.open("means", float)
            total, count = 0.0, 0
            async for number in numbers:
                total, count = total + number, count + 1
                await means.send(total / count)
    print(f"{count} numbers, mean {total / count}")

asyncio.run(main(sys.argv[1]))
