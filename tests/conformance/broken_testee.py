"""A testee with faults, for tests of the reports: it speaks JSON lines, and knows enough to be talked to.

`args` answers what steers terminals and breaks documents, `nothing` ends the process, a missing function has
the wrong text, and the first byte is no line feed. With an argument `deaf` it never answers, with `wrong` its
`describe` is no description.
"""

from __future__ import annotations

import json
import sys
from typing import Any

HOSTILE = "]]> <b> & \" ' \0 \x1b[31m \ud800 \x85 \u2028 \ufffe"
DESCRIPTION = {"protocol": 1, "name": f"broken {HOSTILE}", "version": "0", "features": ["noise"]}


def answer(method: str, args: list[Any]) -> dict[str, Any]:
    match method:
        case "describe":
            return {"result": "I am" if "wrong" in sys.argv else DESCRIPTION}
        case "echo":
            return {"result": args[0]}
        case "reset":
            return {"result": {"running": 0}}
        case "barrier":
            return {}
        case "args":
            sys.stdout.buffer.write(b"noise \xff\x00 ]]>\n")
            return {"result": {"args": [HOSTILE, *args][: len(args)], "kwargs": {}}}
        case "nothing":
            sys.stderr.buffer.write(HOSTILE.encode("utf-8", "surrogatepass") + b" \xff\nthis is the end\n")
            sys.exit(1)
        case _:
            return {"error": f"no {method}"}


def main() -> None:
    for line in sys.stdin.buffer:
        if not line.strip() or "deaf" in sys.argv:
            continue
        question = json.loads(line)
        response = {
            "id": question["id"],
            "method": "",
            "args": answer(question["method"], question["args"]),
            "type": "response",
            "version": "json",
        }
        print(json.dumps(response), flush=True)


if __name__ == "__main__":
    main()
