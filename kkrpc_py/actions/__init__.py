"""Stream actions: one function whose chunks are served over server-sent events and over any RPC channel.

`action` has the decorator, `context` what middleware and handler know of the caller, `stream` what the
handler sends into, `running` the way from an input to the handler's end, `inputs` the check of an input,
`client` the caller's side over HTTP. Nothing here knows of a server: that is `kkrpc_py.web`.
"""
