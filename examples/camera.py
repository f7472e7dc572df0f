"""A blocking thread that sends, an asyncio server that receives: `sync_view` is the bridge.

The driver of a device is blocking code, so it runs on a thread. It gets the sending half as a blocking handle: `send`
waits in place when the other side is slow, and holds up the thread alone. The loop goes on.
"""

import asyncio, netchan

WIDTH, HEIGHT, FRAMES = 64, 48, 30

def camera(frames):                                     # a netchan.sync.Sender: no await, every call takes timeout=
    with frames:                                        # leaving it is the end of the film
        for n in range(FRAMES):
            frames.send(bytes([n]) * (WIDTH * HEIGHT), timeout=10)

async def film(address, key):
    async with netchan.dial(address, identity=key) as peer:
        tx, _ = peer.open("cam", bytes, capacity=2).split()
        await asyncio.to_thread(camera, tx.sync_view())

async def main():
    key = netchan.Identity.generate()
    async with (netchan.listen("tcp://127.0.0.1:0", trust=[key.node_id]) as listener,
                asyncio.TaskGroup() as tasks):
        tasks.create_task(film(listener.addresses[0], key))
        peer = await listener.recv()
        frames = peer.open("cam", bytes, capacity=2)
        got = await frames.recv_many(2, min=2)
        await asyncio.sleep(0.2)                        # the loop is free; the thread runs ahead by the capacity ...
        print("two at most are waiting:", frames.pending <= 2)          # ... and no further
        got += [frame async for frame in frames]
        print("frames:", len(got))
        print("whole and in order:", got == [bytes([n]) * (WIDTH * HEIGHT) for n in range(FRAMES)])

asyncio.run(main())
