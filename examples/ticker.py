"""Select with a ticker: one loop takes readings as they come, reports in a rhythm, and stops when it is told to.

In Go this is `select` with `case v := <-readings`, `case <-ticker.C` and `case <-quit`.
"""

import asyncio, netchan

async def main():
    readings, stop = netchan.channel(int, capacity=4), netchan.channel()

    async def feed():
        for n in range(60):
            await readings.send(n)
            await asyncio.sleep(0.005)
        await stop.send(None)

    seen, reports = [], 0
    async with netchan.ticker(0.02) as ticks, asyncio.TaskGroup() as tasks:
        tasks.create_task(feed())
        reading, tick, told = readings.recv_op(), ticks.recv_op(), stop.recv_op()   # made once, used again and again
        while True:
            won = await netchan.select(reading, tick, told)
            if won is reading:
                seen.append(reading.value)
            elif won is tick:
                reports += 1                            # a tick that nobody took in time is not made up for
            else:
                break
    while (left := await netchan.select(reading, default=None)) is not None:        # what was accepted before the stop
        seen.append(left.value)
    print("every reading, in order:", seen == list(range(60)))
    print("several reports on the way:", 3 <= reports <= 60)

asyncio.run(main())
