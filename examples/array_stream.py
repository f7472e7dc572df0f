"""Numpy arrays over a session: a camera in a thread of its own, and a loop that watches; two frames under way at most.

The camera would be blocking code (a driver, OpenCV), so it uses `netchan.sync`; what watches is asyncio. With capacity
2 the camera waits when the watcher is slow, and no old frames pile up.
"""

import asyncio, threading
import numpy as np
import netchan, netchan.sync

FRAMES, SHAPE = 50, (240, 320, 3)

def camera(address, key):
    with netchan.sync.dial(address, identity=key) as peer:
        with peer.open("camera", np.ndarray, capacity=2) as frames:
            picture = np.zeros(SHAPE, np.uint8)
            for n in range(FRAMES):
                picture[:] = n                          # one buffer for all of them: what was sent is a copy
                picture[0, 0] = 250, 5, 0
                frames.send(picture[..., ::-1])         # RGB to BGR is a view; any strides may be sent

async def main():
    me, key = netchan.Identity.generate(), netchan.Identity.generate()
    async with netchan.listen("tcp://127.0.0.1:0", identity=me, trust=[key.node_id]) as listener:
        filming = threading.Thread(target=camera, args=(listener.addresses[0], key))
        filming.start()
        peer = await listener.recv()
        seen, right = 0, True
        async for frame in peer.open("camera", np.ndarray, capacity=2):
            right &= frame.shape == SHAPE and frame.dtype == np.uint8
            right &= (frame[1:] == seen).all() and frame[0, 0].tolist() == [0, 5, 250]
            frame[:] = 255 - frame                      # ours: writable, and nobody else sees it
            right &= (frame[1:] == 255 - seen).all()
            seen += 1
        print(seen, "frames, each as it was sent:", bool(right))
        await asyncio.to_thread(filming.join)

asyncio.run(main())
