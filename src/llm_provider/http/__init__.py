"""HTTP to an engine: the client, its transports, and the errors of a connection."""
