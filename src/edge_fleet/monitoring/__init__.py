"""The monitoring of a fleet: what Prometheus scrapes, how its programs know each other, and the
dashboard. Nothing here is written, or read, anywhere.
"""
