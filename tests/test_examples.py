"""Every example runs, and says what it should."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SECONDS = 30
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

OUTPUTS = {
    "parent.py": "1 + 2 = 3\n3\n2\n1\n0\n",
    "tokens.py": "The harbour is where the long road ends and the small boats sleep \n"
    "{'tokens': 13, 'stopped': 'end'}\n",
    "cancel.py": "sample 0\nsample 1\nsample 2\nsample 3\nclosed: 1\nclosed: 2\n",
    "many_streams.py": "21 streams, 4200 items, {200} each\n",
    "properties.py": "version 1.2 with the theme light\nthe theme is dark\n"
    "refused: the input of 'theme' is invalid: Expected `str`, got `int`\n"
    "refused: Property path version is not writable\n"
    "refused: Property path secret not found at secret\n"
    "{'text': 'hello, Ada'}\n",
    "typed.py": "Sample(second=0, celsius=20.0) 68.0\nSample(second=1, celsius=20.5) 68.9\n"
    "Sample(second=2, celsius=21.0) 69.8\n",
    "validation.py": "Ada leaves on 01 March\nbook input [0, 'guest']: Missing\n"
    "book input [0, 'arrival']: Invalid RFC3339 encoded date\nbook input [0, 'nights']: "
    "Expected `int` <= 30\n"
    "room 101\nroom 102\nthe output of 'free_rooms' is invalid: Expected `int`, got `str`\n",
    "errors.py": "bolt: 0 left\nbecause of KeyError('KeyError', 'bolt'), ['the ledger is of yesterday']\n"
    "PermissionError: 1000 are too many\n",
    "telemetry.py": "4\n3\ncaller: prices 2 chunks\ncallee: prices below it: True\n",
    "superjson.py": "placed: datetime.datetime(2024, 2, 28, 12, 0, tzinfo=datetime.timezone.utc)\n"
    "tags: {'gift'}\nstock: Map({1: 'apple', 2: 'pear'})\ntotal: BigInt(10)\n"
    "pattern: RegExp('^[a-z]+$', 'i')\nnote: UNDEFINED\n"
    "{'due': datetime.datetime(2024, 3, 1, 12, 0, tzinfo=datetime.timezone.utc), 'total': BigInt(20)}\n"
    "date at args[0]['placed'] cannot be sent unchanged\n",
    "options.py": "archive: ada calls search\n['boats 0', 'boats 1']\narchive: bob calls search\n['boats']\n"
    "archive: ada calls reindex\nreindex took more than 0.2 s\narchive: told to stop\n",
    "values.py": "2.0\n[250, 250, 250, 250]\n1/6\nobject at args[0][0]\n",
    "callbacks.py": "convert a.png?\n1/3\nconvert secret.png?\n2/3\nconvert b.png?\n3/3\n"
    "['A.PNG', 'B.PNG']\nheard: hello\nlisteners: 1\nlisteners: 0\n",
    "stream_arguments.py": "upload: 3000000 bytes\n105\nthe count was closed\n1\n4\n9\n",
    "sync_parent.py": "average: 6.0\ncake 1\ncake 2\ncake 3\ncake 4\noven off after [0.25, 0.5, 0.75, 1.0]\n",
    "relay.py": "1 + 2 = 3\n3 2 1 0\n",
    "connections.py": "hello Ada\nhello Bob\nAda Bob\nAda\n",
    "reconnecting.py": "1 squared is 1\n2 squared is 4\nthe worker that had 3 is gone, exit code 3\n"
    "3 squared is 9\n4 squared is 16\nthe worker that had 5 is gone, exit code 3\n5 squared is 25\n"
    "connected waiting connecting connected waiting connecting connected closed\n",
    "action_progress.py": "".join(  # each \r, read as text, is a new line
        f"\n[{'#' * (4 * done)}{'.' * (24 - 4 * done)}] {100 * done // 6:3} %" for done in range(1, 7)
    )
    + "\nsha256 b69dae56a14d1a8314ed40664c4033ea0a550eea2673e04df42a66ac6b9faf2c\n",
    "action_chat.py": "> Tell me a story, please\n"
    "Certainly, Ada. Question 1 was about 5 words and so on and (enough)\n"
    "> Now!\nrefused: Say please, Ada (IMPOLITE, 422)\n"
    "> A shorter one, please\nCertainly, Ada. Question 2 was about 4 words and so on and (enough)\n",
}
TESTED_BELOW = {"child.py", "unix_server.py", "unix_client.py", "node_parent.py"}
NODE_MODULES = ROOT / "tests" / "node" / "node_modules"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.parametrize("name", OUTPUTS)
def test_example(name: str, tmp_path: Path) -> None:
    done = run(sys.executable, EXAMPLES / name, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, OUTPUTS[name], "")


def test_unix_server_and_client(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "unix_server.py", "socket"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening on socket\n"
            done = run(sys.executable, EXAMPLES / "unix_client.py", "socket", cwd=tmp_path)
            assert (done.returncode, done.stdout) == (0, "tick 0\ntick 1\ntick 2\n")
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=SECONDS)
        finally:
            server.kill()


@pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_MODULES / "kkrpc").exists(),
    reason="no Node, or no kkrpc for it",
)
def test_node_child(tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    for name in ("node_parent.py", "node_child.mjs"):
        shutil.copy(EXAMPLES / name, tmp_path)
    done = run(sys.executable, tmp_path / "node_parent.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    greeting, total = done.stdout.splitlines()
    assert greeting.startswith("Hello Ada, this is Node ")
    assert total == "1 + 2 = 3"


def test_each_example_is_tested_and_explained() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == OUTPUTS.keys() | TESTED_BELOW
    readme = (EXAMPLES / "README.md").read_text()
    assert [name for name in names if f"`{name}`" not in readme] == []
