"""Publish and subscribe: a slow subscriber loses values of its own and holds up nobody.

With `overflow="drop_old"` a `send` never waits: where there is no room the oldest tick makes place. Without it the
slowest subscriber would set the pace, which is what you want where nothing may be lost.
"""

import asyncio, netchan

TICKS = 300

async def main():
    quick, slow = netchan.Identity.generate(), netchan.Identity.generate()
    subscribers, complete = set(), asyncio.Event()

    async def welcome(peer):
        feed = peer.open("ticks", int, capacity=4, overflow="drop_old")
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
            ticks = publisher.open("ticks", int)        # the publisher has said how many, and what goes
            async for tick in ticks:
                got.append(tick)
                await asyncio.sleep(pause)
            return got, ticks.stats().dropped

    async with netchan.listen("tcp://127.0.0.1:0", trust=[quick.node_id, slow.node_id]) as listener:
        server = asyncio.create_task(listener.serve(welcome))
        readers = [
            asyncio.create_task(subscribe(listener.addresses[0], quick, 0)),
            asyncio.create_task(subscribe(listener.addresses[0], slow, 0.02)),
        ]
        await complete.wait()
        for tick in range(TICKS):
            for feed in subscribers:
                await feed.send(tick)                   # never waits
            await asyncio.sleep(0.001)
        for feed in subscribers:
            feed.close()                                # the end comes behind the last value
        (fast, fast_lost), (late, late_lost) = [await reader for reader in readers]
        server.cancel()
    print("both saw the ticks in order:", fast == sorted(fast) and late == sorted(late))
    print("the slow one lost some:", len(late) < len(fast) <= TICKS)
    print("the newest came to both:", fast[-1] == late[-1] == TICKS - 1)
    print("received or counted as dropped:", len(fast) + fast_lost == len(late) + late_lost == TICKS)

asyncio.run(main())
