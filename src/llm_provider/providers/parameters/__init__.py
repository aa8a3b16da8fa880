"""Which fields of a request an engine does, and what happens to those that it would ignore."""
