# path_handle: what a program says of the paths of a session, and hears of them. Layer: _engine.
# Threads: holders of the GIL. Everything here is for Python: nothing is declared for other modules.
