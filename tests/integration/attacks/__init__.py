"""The chat API as a process, against hostile and faulty clients, on loopback only."""
