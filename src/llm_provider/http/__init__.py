"""HTTP to an engine: the client, the errors of a connection, server-sent events."""
