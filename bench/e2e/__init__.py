"""End-to-end benchmark: one sender process, one receiver process, 127.0.0.1, peers and ours in turn.

``python -m bench.e2e`` is the command. The flow of one run of one row:

1. runner.py starts two processes (child.py) and commands them over a socket pair, one JSON line per command.
2. child.py makes the peer's side (peers/, peer_netchan.py) and runs the loops of contract.py.
3. The receiver checks and counts every message; rate = n / (receiver holds message n - sender starts message 1),
   both stamps from CLOCK_MONOTONIC, which all processes of one machine share.
4. report.py makes the medians, the table, the JSON file and the comparison.
"""
