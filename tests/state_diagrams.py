"""The state diagrams of spec/protocol.md, drawn from the tables in `kkrpc_py.core.tables`.

    $ python -m tests.state_diagrams            # says whether the text is what the tables say
    $ python -m tests.state_diagrams --write    # puts it there

It owns the words of the wire for the events of the tables, and the form of the appendix. What the tables
say it does not judge; that the text follows them is checked by `tests/test_spec.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kkrpc_py.core.tables import CALLEE, CALLER, CalleeEvent, CalleeState, CallerEvent, CallerState, Do

SPEC = Path(__file__).resolve().parents[1] / "spec" / "protocol.md"

Table = Mapping[tuple[Any, Any], tuple[Any, Do]]


@dataclasses.dataclass(frozen=True)
class Half:
    """One half of a call: its table, and the words for what is in it.

    The words are apart for each half, since members of two IntEnums are equal to each other.
    """

    states: type[Any]
    table: Table
    messages: Mapping[Any, str]
    """What the peer sends, in the words of the wire."""
    decisions: Mapping[Any, str]
    """What this side does by itself."""
    sends: Mapping[tuple[Any, Any], str]
    """What is sent in a step that sends."""
    begins: Sequence[tuple[Any, str]]
    """How a call begins, which no table says."""

    def word(self, event: Any) -> str:
        return self.messages.get(event) or self.decisions[event]


_CANCEL = "stream-cancel"

HALVES: dict[str, Half] = {
    "caller": Half(
        states=CallerState,
        table=CALLER,
        messages={
            CallerEvent.RESULT: "response (result)",
            CallerEvent.FAILURE: "response (error)",
            CallerEvent.OPENED: "response (__stream)",
            CallerEvent.CHUNKS: "stream-chunk",
            CallerEvent.END: "stream-end",
            CallerEvent.STREAM_FAILURE: "stream-error",
            CallerEvent.UNREADABLE: "malformed answer",
        },
        decisions={
            CallerEvent.CANCEL: "given up, cancel agreed",
            CallerEvent.STOCK_CANCEL: "given up, cancel not agreed",
            CallerEvent.CANCEL_AGREED: "the hello agrees on cancel",
        },
        sends=dict.fromkeys(CALLER, _CANCEL),
        begins=((CallerState.WAITING, "sends a request"), (CallerState.OPEN, "gets a stream within a value")),
    ),
    "callee": Half(
        states=CalleeState,
        table=CALLEE,
        messages={
            CalleeEvent.CANCEL: _CANCEL,
            CalleeEvent.ACK: "stream-ack",
            CalleeEvent.REQUEST: "request under the same id",
        },
        decisions={
            CalleeEvent.RETURN: "returned",
            CalleeEvent.RAISE: "raised",
            CalleeEvent.OPEN: "returned a stream",
            CalleeEvent.YIELD: "has values",
            CalleeEvent.FINISH: "is exhausted",
            CalleeEvent.STOPPED: "cleaned up",
        },
        sends={
            (CalleeState.RUNNING, CalleeEvent.RETURN): "response (result)",
            (CalleeState.RUNNING, CalleeEvent.RAISE): "response (error)",
            (CalleeState.RUNNING, CalleeEvent.OPEN): "response (__stream)",
            (CalleeState.STREAMING, CalleeEvent.YIELD): "stream-chunk",
            (CalleeState.STREAMING, CalleeEvent.FINISH): "stream-end",
            (CalleeState.STREAMING, CalleeEvent.RAISE): "stream-error",
            (CalleeState.STOPPING_CALL, CalleeEvent.RAISE): "response (error)",
            (CalleeState.STOPPING_CALL, CalleeEvent.STOPPED): "response (CallCancelled)",
            (CalleeState.STOPPING_STREAM, CalleeEvent.RAISE): "stream-error",
            (CalleeState.STOPPING_STREAM, CalleeEvent.STOPPED): "stream-end (cancelled)",
        },
        begins=((CalleeState.RUNNING, "request"), (CalleeState.STREAMING, "sends a stream within a value")),
    ),
}


def diagram(half: Half) -> str:
    """The half as a Mermaid state diagram: the steps that do something, and what is sent with them."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f'    state "{_title(state)}" as {state.name}' for state in half.states if state.name != "DONE"]
    lines += [f"    [*] --> {state.name} : {how}" for state, how in half.begins]
    arrows: dict[tuple[str, str, str], list[str]] = {}
    for (state, event), (after, do) in half.table.items():
        if after is not state or do not in (Do.IGNORE, Do.VIOLATION):
            sent = f" / sends {half.sends[state, event]}" if do is Do.SEND else ""
            end = "[*]" if after.name == "DONE" else after.name
            arrows.setdefault((state.name, end, sent), []).append(half.word(event))
    lines += [
        f"    {start} --> {end} : {' or '.join(words)}{sent}" for (start, end, sent), words in arrows.items()
    ]
    return "\n".join([*lines, "```"])


def leftovers(half: Half) -> str:
    """The messages that no arrow shows: what is dropped without a word, and what is counted."""
    rows = ["| state | dropped, no violation | violation: counted, nothing changes |", "|---|---|---|"]
    for state in half.states:
        cells = [
            ", ".join(
                f"`{half.messages[event]}`"
                for (before, event), (after, do) in half.table.items()
                if before is after is state and do is wanted and event in half.messages
            )
            for wanted in (Do.IGNORE, Do.VIOLATION)
        ]
        if any(cells):
            rows.append("| " + " | ".join(cell or "-" for cell in (_title(state), *cells)) + " |")
    return "\n".join(rows)


def _title(state: Any) -> str:
    title: str = state.name.replace("_", " ").capitalize()
    return title


def blocks(halves: Mapping[str, Half] = HALVES) -> dict[str, str]:
    """What stands between the markers of each name."""
    return {name: f"{diagram(half)}\n\n{leftovers(half)}" for name, half in halves.items()}


def with_blocks(text: str) -> str:
    """`text` with each block in its place."""
    for name, block in blocks().items():
        begin, end = f"<!-- states: {name} -->", f"<!-- /states: {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        found = pattern.findall(text)
        if len(found) != 1:
            raise ValueError(f"{len(found)} places for {begin} … {end}, and there must be one")
        text = text.replace(found[0], f"{begin}\n\n{block}\n\n{end}")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Check the specification, or write it; 1: it is not what the tables say."""
    parser = argparse.ArgumentParser(prog="python -m tests.state_diagrams", description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    text = SPEC.read_text(encoding="utf-8")
    wanted = with_blocks(text)
    if options.write:
        SPEC.write_text(wanted, encoding="utf-8")
        return 0
    if text != wanted:
        print(f"{SPEC.name} is not what core/tables.py says: python -m tests.state_diagrams --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
