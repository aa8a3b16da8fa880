"""A host's chat API as a client sees it."""
