"""The interface to an engine, the engines, and which one a host uses."""
