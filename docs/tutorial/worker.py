"""The worker of the tutorial: without an argument it says who it is, with an address it works there.

python worker.py [ADDRESS]
"""

import asyncio
import sys

import netchan


async def main(me: netchan.Identity, address: str) -> None:
    async with netchan.dial(address, identity=me) as boss:
        jobs, done = boss.open("jobs", int), boss.open("done", str)
        async for n in jobs:
            await done.send(f"{n} * {n} = {n * n}")
    print("no more jobs")


me = netchan.Identity.load_or_create("worker.key")
if len(sys.argv) > 1:
    asyncio.run(main(me, sys.argv[1]))
else:
    print(me.node_id)
