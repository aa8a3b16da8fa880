"""What a benchmark of a host reads and measures on the host itself."""
