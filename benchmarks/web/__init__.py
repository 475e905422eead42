"""Server-sent events and WebSocket, beside plain endpoints that stream the same."""
