"""Boss: hands out numbers and prints what comes back. The worker is a program of its own, on this machine or another.

    netchan key new worker.key          # prints the worker's node id: the only thing the boss must be told
    python boss.py WORKER_NODE_ID       # prints the address, which carries the boss's node id
    python worker.py ADDRESS            # in a second terminal, beside worker.key

Neither side sends its key anywhere. The boss lets in that one node id, the worker accepts nobody but the boss.
"""

import asyncio, sys
import netchan

async def main(worker):
    boss = netchan.Identity.load_or_create("boss.key")  # made at the first run, the same ever after
    async with netchan.listen("tcp://127.0.0.1:0", identity=boss, trust=[worker]) as listener:
        print(listener.addresses[0], flush=True)
        peer = await listener.recv()
        jobs, done = peer.open("jobs", int), peer.open("done", str)
        await jobs.send_many(range(1, 6))
        jobs.close()
        async for line in done:
            print(line)

asyncio.run(main(sys.argv[1]))
