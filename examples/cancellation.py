"""Cancellation: nothing is lost and nothing is sent twice.

`send_many` takes the next item from an iterator only when it has room for it. Cancel it anywhere: what was accepted
arrives, and the iterator still holds exactly the rest.
"""

import asyncio, netchan

async def main():
    key = netchan.Identity.generate()
    async with (
        netchan.listen("tcp://127.0.0.1:0", trust=[key.node_id]) as listener,
        netchan.dial(listener.addresses[0], identity=key) as there,
    ):
        here = await listener.recv()
        tx, rx = there.open("numbers", int, capacity=8), here.open("numbers", int, capacity=8)

        numbers = iter(range(100))
        sending = asyncio.create_task(tx.send_many(numbers))
        got = [await rx.recv() for _ in range(30)]
        sending.cancel()
        try:
            await sending
        except asyncio.CancelledError:
            print("sending was cancelled")

        tx.close()
        got += [n async for n in rx]                    # what had been accepted still arrives
        rest = list(numbers)                            # what had not is still in the iterator
        print("received and left over make the whole:", got + rest == list(range(100)))
        print("some of each:", len(got) >= 30 and len(rest) > 0)

        tx, rx = there.open("late", int), here.open("late", int)
        waiting = asyncio.create_task(rx.recv())
        await asyncio.sleep(0)
        waiting.cancel()                                # a receiver that gives up takes nothing with it
        await tx.send(7)
        print("still there:", await rx.recv())

asyncio.run(main())
