"""What the demo writes: a progress bar on a terminal, plain lines elsewhere.

Owns the output and how numbers look. Knows nothing of what is being done.
"""

from __future__ import annotations

import os
import shutil
import time
import unicodedata
from typing import TextIO

__all__ = ["Screen", "count", "size"]

_REDRAW_SECONDS = 0.05
_BAR_CELLS = 24
_PLAIN_STEPS = 4
"""Lines that stand for a bar where there is no terminal."""


class Screen:
    """Lines, and at most one progress bar below them."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty() and os.environ.get("TERM", "") != "dumb"
        self._colour = self._live and not os.environ.get("NO_COLOR")
        self._full, self._empty = ("█", "░") if _can_write(out, "█░") else ("#", "-")
        self._drawn_at = 0.0
        self._drawn = ""
        self._bar = ""
        self._step = 0

    def title(self, text: str) -> None:
        """A heading."""
        self.line("")
        self._write(f"\x1b[1m{text}\x1b[0m\n" if self._colour else f"{text}\n")

    def line(self, text: str) -> None:
        """A line, below the bar if there is one."""
        self._write(f"{self._printable(text)}\n")

    def bar(self, share: float, text: str, detail: str = "") -> None:
        """Show how far it is: `share` is 0 to 1; `detail` is cut to the terminal's width."""
        share = min(max(share, 0.0), 1.0)
        if not self._live:
            step = int(share * _PLAIN_STEPS)
            if step > self._step:
                self._step = step
                self._write(f"  {share:4.0%}  {self._printable(text)}\n")
            return
        full = round(share * _BAR_CELLS)
        cells = self._full * full + self._empty * (_BAR_CELLS - full)
        if self._colour:
            cells = f"\x1b[36m{cells}\x1b[0m"
        room = shutil.get_terminal_size().columns - _BAR_CELLS - 11
        rest = _cut(f"{self._printable(text)}  {self._printable(detail)}", room)
        self._bar = f"\r\x1b[K  {cells} {share:4.0%}  {rest}"
        now = time.monotonic()
        if now - self._drawn_at >= _REDRAW_SECONDS:
            self._drawn_at = now
            self._draw()

    def end_bar(self) -> None:
        """Leave the bar as it was at last; the next one begins anew."""
        if self._bar:
            self._draw()
            self._write("\n")
        self._bar = self._drawn = ""
        self._step = 0

    def _draw(self) -> None:
        if self._bar != self._drawn:
            self._drawn = self._bar
            self._write(self._bar)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _printable(self, text: str) -> str:
        """File names may hold anything, also what steers a terminal."""
        shown = "".join(char if char.isprintable() else "�" for char in text)
        encoding = self._out.encoding or "ascii"
        return shown.encode(encoding, "replace").decode(encoding)


def _can_write(out: TextIO, text: str) -> bool:
    try:
        text.encode(out.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _cut(text: str, cells: int) -> str:
    """As much of `text` as fits into `cells` columns."""
    for end, char in enumerate(text):
        if unicodedata.combining(char) == 0:
            cells -= 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if cells < 0:
            return text[:end]
    return text


def count(number: int, noun: str) -> str:
    """`1 file`, `1,234 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number: float) -> str:
    """Bytes as one reads them: `512 B`, `1.5 MB`; a MB is a million."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
