"""Trio: the same module and the same names; whoever runs the task decides. `pip install 'netchan[trio]'`

Calls are coroutine functions, so `start_soon` takes them as they are, and a cancelled scope gives up a wait without
losing a value.
"""

import netchan, trio

async def answer(peer):
    async with peer.open("squares", int) as channel:
        async for n in channel:
            await channel.send(n * n)

async def main():
    key = netchan.Identity.generate()
    async with netchan.listen("tcp://127.0.0.1:0", trust=[key.node_id]) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, answer)
        async with netchan.dial(listener.addresses[0], identity=key) as peer:
            squares = peer.open("squares", int)
            for n in (3, 4, 5):
                nursery.start_soon(squares.send, n)     # three tasks, one value each
            print(sorted([await squares.recv() for _ in range(3)]))
            with trio.move_on_after(0.05) as scope:
                await squares.recv()
            print("gave up:", scope.cancelled_caught)
            await squares.send(6)
            print("and lost nothing:", await squares.recv())
        nursery.cancel_scope.cancel()

trio.run(main)
