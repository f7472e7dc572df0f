"""Worker: squares the numbers that the boss sends; see boss.py for how to start the two."""

import asyncio, sys
import netchan

async def main(address):
    me = netchan.Identity.load_or_create("worker.key")
    async with netchan.dial(address, identity=me) as boss:
        jobs, done = boss.open("jobs", int), boss.open("done", str)
        async for n in jobs:                            # ends when the boss closes it
            await done.send(f"{n} * {n} = {n * n}")

asyncio.run(main(sys.argv[1]))
