# handover_handle: sessions that leave for another process, or come from one, as Python holds them. Layer: _engine.
# Threads: holders of the GIL. Everything here is for Python: nothing is declared for other modules.
