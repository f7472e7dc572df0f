"""Publish and subscribe: a slow subscriber loses values of its own and holds up nobody.

`send_nowait` never waits: with no room it raises WouldBlock, and this publisher then skips that subscriber. With `send`
instead, the slowest subscriber would set the pace, which is what you want where nothing may be lost.
"""

import asyncio, netchan

TICKS = 300

async def main():
    quick, slow = netchan.Identity.generate(), netchan.Identity.generate()
    subscribers, complete = set(), asyncio.Event()

    async def welcome(peer):
        feed = peer.open("ticks", int, capacity=16)
        subscribers.add(feed)
        if len(subscribers) == 2:
            complete.set()
        try:
            await peer.wait_closed()                    # until the subscriber leaves
        finally:
            subscribers.discard(feed)

    async def subscribe(address, key, pause):
        got = []
        async with netchan.dial(address, identity=key) as publisher:
            async for tick in publisher.open("ticks", int, capacity=16):
                got.append(tick)
                await asyncio.sleep(pause)
        return got

    async with netchan.listen("tcp://127.0.0.1:0", trust=[quick.node_id, slow.node_id]) as listener:
        server = asyncio.create_task(listener.serve(welcome))
        readers = [
            asyncio.create_task(subscribe(listener.addresses[0], quick, 0)),
            asyncio.create_task(subscribe(listener.addresses[0], slow, 0.02)),
        ]
        await complete.wait()
        skipped = 0
        for tick in range(TICKS):
            for feed in subscribers:
                try:
                    feed.send_nowait(tick)
                except netchan.WouldBlock:
                    skipped += 1
            await asyncio.sleep(0.001)
        for feed in subscribers:
            feed.close()                                # the end comes behind the last value
        fast, late = [await reader for reader in readers]
        server.cancel()
    print("both saw the ticks in order:", fast == sorted(fast) and late == sorted(late))
    print("the slow one lost some:", len(late) < len(fast) <= TICKS)
    print("sent or skipped, nothing else:", len(fast) + len(late) + skipped == 2 * TICKS)

asyncio.run(main())
