"""Tests of the parts of the chat API's server."""
