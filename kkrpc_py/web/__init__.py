"""Actions, calls and channels over HTTP: an ASGI application. It needs the extra `http`.

`app` puts it together, `endpoints` answer a request for an action or a call, `guards` judge where it comes
from, `body` reads it, `answers` refuses it. `encoding` makes JSON of chunks, `outlet` is their way to the
connection, `sse` the response, `replay` the runs that outlive a connection, `streams` what they all belong
to. `rpc` has single calls, `sockets` the WebSocket.
"""
