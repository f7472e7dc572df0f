"""Request and reply: each question carries the channel for its own answer.

`tx` moves with the question, so the answering side holds the only sender. If it answers, `rx` has the answer; if it
forgets, or crashes, `rx` raises. There is nothing to match up, and no answer to wait for in vain.
"""

import asyncio
from dataclasses import dataclass
import netchan

@dataclass
class Ask:                                              # a type of your own: pip install 'netchan[fast]'
    n: int
    reply: netchan.Sender[int]

async def answer(peer):
    async for ask in peer.open("squares", Ask):
        async with ask.reply as reply:
            if ask.n >= 0:                              # nothing for the others: their `rx` ends without a value
                await reply.send(ask.n ** 2)

async def main():
    key = netchan.Identity.generate()
    async with netchan.listen("tcp://127.0.0.1:0", trust=[key.node_id]) as listener:
        server = asyncio.create_task(listener.serve(answer))
        async with netchan.dial(listener.addresses[0], identity=key) as peer:
            asks = peer.open("squares", Ask)

            async def square(n):
                tx, rx = netchan.channel(int, capacity=1).split()
                await asks.send(Ask(n, tx))             # from here on, tx is over there
                async with asyncio.timeout(5):
                    return await anext(rx, None)

            answers = await asyncio.gather(*(square(n) for n in range(50)))
            print("fifty at once:", answers == [n * n for n in range(50)])
            print("no answer to this one:", await square(-1))
        server.cancel()

asyncio.run(main())
