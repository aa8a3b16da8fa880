"""Other clients' APIs, translated to and from OpenAI's chat completions: Anthropic's and Ollama's.

Pure functions, and for streams one object each that is fed with parsed chunks and returns bytes.
They are for an engine that does not speak the client's API. llama-server (since the end of 2025),
vLLM (since 0.11.1) and Ollama (since 0.14) answer /v1/messages themselves; llama.cpp's images of
2024 for older Jetsons do not, and Ollama's route ignores `tool_choice` and has no `count_tokens`.
Only Ollama speaks Ollama's API.

There is no small, maintained library for this. LiteLLM does it, and is far too heavy for a board:
hundreds of megabytes and seconds of imports for two formats. llm-rosetta knows Anthropic's format,
not Ollama's, and is at 0.x; oai2ollama and the Anthropic counterparts on PyPI are whole proxies of
one author each, without a function to call. What they have in common is that they leave out what
they do not know; here every parameter is translated, named in `Translated.dropped`, or refused.
"""
