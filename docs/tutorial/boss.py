"""The boss of the tutorial: listens for one worker, sends five numbers, prints what comes back.

python boss.py WORKER_ID [ADDRESS]
"""

import asyncio
import sys

import netchan


async def main(worker_id: str, address: str) -> None:
    me = netchan.Identity.load_or_create("boss.key")
    async with netchan.listen(address, identity=me, trust=[worker_id]) as listener:
        print("dial", listener.addresses[0], flush=True)
        peer = await listener.recv()
        jobs, done = peer.open("jobs", int), peer.open("done", str)
        await jobs.send_many(range(1, 6))
        jobs.close()
        async for line in done:
            print(line)
        print("the worker has left")


asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "tcp://127.0.0.1:0"))
