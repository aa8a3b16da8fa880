"""Programs that run with few imports: no other part of this package, and the standard library."""
