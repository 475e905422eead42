"""Our own contender: both ends of a kkrpc_py channel in one workload after the other."""
