"""Relays between a dialler and a listener that can be cut and restored: the bad network of the demo.

A relay knows nothing of netchan: it carries bytes (TCP, Unix) or datagrams (UDP). ``cut`` is a real one: the
connections are reset and nobody answers at the relay's address; datagrams vanish without a word. ``restore`` undoes it.
"""

import asyncio, contextlib, socket

CHUNK = 1 << 16
QUEUE = 1 << 20                     # bytes that wait in a stream relay each way before it reads no more


class StreamRelay:
    """TCP or Unix: each connection made here is joined to one of its own to the target.

    place: (host, port) or a path, of the relay; port 0 = any free one. target: of the listener, in the same form.
    """

    def __init__(self, place, target):
        self.place, self.target = place, target
        self.server, self.ends, self.carried, self.tasks = None, set(), 0, set()

    async def restore(self):
        if self.server is not None:
            return
        if isinstance(self.place, str):
            self.server = await asyncio.start_unix_server(self.join, self.place, limit=CHUNK)
        else:
            self.server = await asyncio.start_server(self.join, *self.place, limit=CHUNK)
            self.place = self.server.sockets[0].getsockname()[:2]

    async def cut(self):
        if self.server is not None:
            self.server.close()
            self.server = None
        for writer in list(self.ends):
            writer.transport.abort()

    async def close(self):
        await self.cut()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def join(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        self.ends.add(writer)
        outer = None
        try:
            if isinstance(self.target, str):
                back, outer = await asyncio.open_unix_connection(self.target, limit=CHUNK)
            else:
                back, outer = await asyncio.open_connection(*self.target, limit=CHUNK)
            self.ends.add(outer)
            if self.server is None:
                return
            for end in (writer, outer):
                end.transport.set_write_buffer_limits(high=QUEUE)
            await asyncio.gather(self.carry(reader, outer), self.carry(back, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            for end in (writer, outer):
                if end is not None:
                    self.ends.discard(end)
                    end.transport.abort()

    async def carry(self, reader, writer):
        while data := await reader.read(CHUNK):
            self.carried += len(data)
            writer.write(data)
            await writer.drain()
        writer.write_eof()


class DatagramRelay:
    """UDP: each address that sends here gets a socket of its own to the target."""

    def __init__(self, place, target):
        self.place, self.target, self.carried = place, target, 0
        self.door, self.dead, self.out = None, False, {}

    async def restore(self):
        self.dead = False
        if self.door is None:
            self.door = self.bound(self.place)
            self.place = self.door.getsockname()[:2]
            asyncio.get_running_loop().add_reader(self.door, self.up)

    async def cut(self):
        self.dead = True

    async def close(self):
        loop = asyncio.get_running_loop()
        for sock in [self.door, *self.out.values()]:
            if sock is not None:
                loop.remove_reader(sock)
                sock.close()
        self.door, self.out = None, {}

    @staticmethod
    def bound(place):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.setblocking(False)
        sock.bind(tuple(place))
        return sock

    def up(self):
        for data, origin in self.taken(self.door):
            sock = self.out.get(origin)
            if sock is None:
                if len(self.out) >= 64:                 # who has moved on: the oldest ones go
                    old = self.out.pop(next(iter(self.out)))
                    asyncio.get_running_loop().remove_reader(old)
                    old.close()
                sock = self.out[origin] = self.bound(("127.0.0.1", 0))
                asyncio.get_running_loop().add_reader(sock, self.down, sock, origin)
            self.give(sock, data, tuple(self.target))

    def down(self, sock, origin):
        for data, _ in self.taken(sock):
            self.give(self.door, data, origin)

    def taken(self, sock):
        for _ in range(64):
            try:
                yield sock.recvfrom(CHUNK)
            except OSError:
                return

    def give(self, sock, data, place):
        if self.dead:
            return
        self.carried += len(data)
        with contextlib.suppress(OSError):              # a full buffer loses a datagram, as networks do
            sock.sendto(data, place)
