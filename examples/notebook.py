"""Cell by cell, as in a notebook: no `async with` round everything, objects that live from one cell to the next.

Each `# %%` begins a cell (Jupyter, VS Code and Spyder know the mark). `netchan.sync` has an engine of its own and needs
no running loop; in a notebook with a loop, `peer = await netchan.dial(...)` works in a cell just as well.
"""

# %% one side: in real life this runs on another machine
import threading
import netchan, netchan.sync

me = netchan.Identity.generate()
listener = netchan.sync.listen("tcp://127.0.0.1:0", trust=[me.node_id])

def thermometer():
    with listener.recv() as peer, peer.open("readings", float, capacity=4) as readings:
        for n in range(100):
            readings.send(20 + n / 10)                  # held back once four are under way

serving = threading.Thread(target=thermometer)
serving.start()

# %% connect, once
peer = netchan.sync.dial(listener.addresses[0], identity=me)
readings = peer.open("readings", float, capacity=4)
print("connected to", peer.node_id == listener.node_id and "the thermometer")

# %% look at a few values; run this cell again for the next ones
print([readings.recv(timeout=5) for _ in range(3)])

# %% and again
print([readings.recv(timeout=5) for _ in range(3)])

# %% take the rest at once
rest = list(readings)
print(len(rest), "more, the last one", rest[-1])

# %% tidy up
peer.aclose()
serving.join()
listener.aclose()
print("closed")
