"""Job farm: one queue of jobs, several workers, each served when it is free.

The jobs wait in one Go channel of this process, and one task per worker takes from it. `reserve` waits for room at the
worker first and takes the job then, so a worker has one job in hand and one at its door, and the rest are for whoever
is free.
"""

import asyncio, netchan

JOBS = 60

async def work(address, key, seconds):
    finished = 0
    async with netchan.dial(address, identity=key) as boss:
        jobs, done = boss.open("jobs", int), boss.open("done", int)
        async for n in jobs:
            await asyncio.sleep(seconds)                # the slow part
            await done.send(n * n)
            finished += 1
    return finished

async def main():
    keys = [netchan.Identity.generate() for _ in range(3)]
    jobs = netchan.channel(int, capacity=4)             # a channel in this process: many tasks take from it
    results = netchan.channel(int, capacity=4)

    async def feed(peer):                               # one of these runs for every worker
        tx, rx = peer.open("jobs", int, capacity=1), peer.open("done", int)

        async def collect():
            async for square in rx:                     # until the worker leaves
                await results.send(square)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(collect())
            try:
                while True:
                    async with tx.reserve() as permit:  # the worker has room ...
                        permit.send(await jobs.recv())  # ... now take a job
            except netchan.ChannelEnded:                # no more jobs
                tx.close()

    async def produce():
        await jobs.send_many(range(JOBS))
        jobs.close()

    async with netchan.listen("tcp://127.0.0.1:0", trust=[key.node_id for key in keys]) as listener:
        server = asyncio.create_task(listener.serve(feed))
        async with asyncio.TaskGroup() as tasks:
            workers = [
                tasks.create_task(work(listener.addresses[0], key, seconds))
                for key, seconds in zip(keys, (0.001, 0.002, 0.030), strict=True)
            ]
            tasks.create_task(produce())
            squares = [await results.recv() for _ in range(JOBS)]
        server.cancel()
    quick, middle, slow = (worker.result() for worker in workers)
    print("sum of the squares:", sum(squares))
    print("every job done once:", sorted(squares) == [n * n for n in range(JOBS)] and quick + middle + slow == JOBS)
    print("the slow worker did the fewest:", slow < middle and slow < quick)

asyncio.run(main())
