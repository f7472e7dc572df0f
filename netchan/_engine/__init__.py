"""Layer 2: the compiled engine; the only code that owns file descriptors and threads."""

import select

if not hasattr(select, "epoll"):
    raise ImportError(
        "netchan's engine needs epoll, which this platform does not have: run it on Linux (a container will do); "
        "there is no other poller yet"
    )
