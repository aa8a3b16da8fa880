"""The status of a fleet: what runs where, whether it is healthy, and what to do about it."""
