"""Timeouts: `asyncio.timeout` round any call, `netchan.after` as an arm of `select`.

A call that ran out of time has done nothing: a `recv` has taken no value, a `send` was not accepted. Try again, or
leave it.
"""

import asyncio, netchan

async def main():
    key = netchan.Identity.generate()
    async with (
        netchan.listen("tcp://127.0.0.1:0", trust=[key.node_id]) as listener,
        netchan.dial(listener.addresses[0], identity=key) as there,
    ):
        here = await listener.recv()
        tx, rx = there.open("readings", float, capacity=2), here.open("readings", float, capacity=2)

        try:
            async with asyncio.timeout(0.05):
                await rx.recv()
        except TimeoutError:
            print("nothing came within 50 ms")

        sent = 0
        try:
            async with asyncio.timeout(0.2):
                while True:
                    await tx.send(20.0 + sent)          # nobody receives: the sender is held back
                    sent += 1
        except TimeoutError:
            print(f"accepted {sent}, then no room for 200 ms")

        print("received", await rx.recv(), await rx.recv())
        async with asyncio.timeout(1):
            await tx.send(99.0)                         # there is room again
            print("and then", await rx.recv())

        reading, late = rx.recv_op(), netchan.after(0.05)
        if await netchan.select(reading, late) is late:
            print("nothing more; the timer won")

asyncio.run(main())
