"""What the demo shows while it runs: a live table where `rich` is installed, plain lines otherwise."""

import sys, time

EVERY = 1.0                         # seconds between two plain lines


def new_table(wish, paths):
    """wish: "live", "plain", or "" for whatever the output is."""
    try:
        import rich  # noqa: F401
    except ImportError:
        return Plain()
    return Live(paths) if wish == "live" or (wish != "plain" and sys.stdout.isatty()) else Plain()


class Rates:
    """Values and bytes a second between two looks."""

    def __init__(self):
        self.began = self.at = time.monotonic()
        self.values = self.bytes = 0

    def since(self, values, size):
        now = time.monotonic()
        span = max(now - self.at, 1e-9)
        rates = (values - self.values) / span, (size - self.bytes) / span
        self.at, self.values, self.bytes = now, values, size
        return rates


class Plain:
    """A line a second, and one for each event."""

    def __init__(self):
        self.rates = Rates()

    def __enter__(self):
        print(f"  {'time':>6} {'values':>11} {'values/s':>11} {'MB/s':>7}  paths", flush=True)
        return self

    def __exit__(self, *_):
        pass

    def say(self, text):
        print(f"  {time.monotonic() - self.rates.began:5.1f}s {text}", flush=True)

    def show(self, values, total, size, rows, cut, mode):
        if time.monotonic() - self.rates.at < EVERY:
            return
        per_second, speed = self.rates.since(values, size)
        states = ", ".join(f"{name} {row[0]}" for name, row in rows.items() if name)
        self.say(f"{values:>11,} {per_second:>11,.0f} {speed / 1e6:>7.1f}  {states or 'none'}")


class Live:
    """The table of the paths, drawn again ten times a second; events scroll by above it."""

    def __init__(self, paths):
        from rich.console import Console
        from rich.live import Live as Screen

        self.paths, self.rates, self.shown = paths, Rates(), (0.0, 0.0)
        self.console = Console(force_terminal=True, file=sys.stdout)
        self.screen = Screen(console=self.console, auto_refresh=False)

    def __enter__(self):
        self.screen.start()
        return self

    def __exit__(self, *_):
        self.screen.stop()

    def say(self, text):
        self.console.print(f"  {time.monotonic() - self.rates.began:5.1f}s {text}", highlight=False)

    def show(self, values, total, size, rows, cut, mode):
        from rich.table import Table

        if time.monotonic() - self.rates.at >= EVERY / 2:
            self.shown = self.rates.since(values, size)
        per_second, speed = self.shown
        table = Table(
            title=f"{values:,} of {total:,} values   {per_second:,.0f} values/s   {speed / 1e6:.1f} MB/s   {mode}"
        )
        table.add_column("path")
        table.add_column("state")
        for column in ("round trip", "MB/s", "in flight"):
            table.add_column(column, justify="right")
        colours = {"active": "green", "standby": "cyan", "suspect": "yellow"}
        for name in self.paths:
            if name in rows:
                state, rtt, rate, flying = rows[name]
                shown = "cut" if name in cut else state
                state = f"[{colours.get(shown, 'red')}]{shown}[/]"
                table.add_row(name, state, f"{rtt * 1e3:.1f} ms", f"{rate / 1e6:.1f}", str(flying))
            else:
                table.add_row(name, f"[red]{'cut' if name in cut else 'being made'}[/]", "", "", "")
        self.screen.update(table, refresh=True)
