"""The blocking half of a pair: no event loop, no `await`; every call that can wait takes `timeout=`.

    netchan key new client.key
    python async_server.py CLIENT_NODE_ID       # prints the address
    python sync_client.py ADDRESS               # in a second terminal, beside client.key
"""

import sys
import netchan, netchan.sync

me = netchan.Identity.load_or_create("client.key")
with netchan.sync.dial(sys.argv[1], identity=me) as server:
    numbers, means = server.open("numbers", float), server.open("means", float)
    for number in (3.0, 5.0, 10.0):
        numbers.send(number, timeout=5)
        print(f"after {number} the mean is {means.recv(timeout=5)}")
    try:
        means.recv(timeout=0.1)
    except TimeoutError:
        print("no more means without numbers")
