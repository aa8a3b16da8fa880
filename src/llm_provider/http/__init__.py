"""HTTP to an engine: client, transports, errors of a connection; server-sent events."""
