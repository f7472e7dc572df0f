"""A network of two namespaces with a link between them that does what a test says, and programs at its ends.

Needs root, ``ip`` and /dev/net/tun; run by ``make chaos``.
"""
