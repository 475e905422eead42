"""How fast kkrpc_py is between two processes, beside a bare pipe: `python -m benchmarks`."""
