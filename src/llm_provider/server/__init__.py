"""The chat API: one OpenAI-compatible address before whichever engine this host runs."""
