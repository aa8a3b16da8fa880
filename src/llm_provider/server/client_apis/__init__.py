"""The clients' APIs beside OpenAI's chat: how requests go to an engine, and answers back.

Every engine is asked in OpenAI's format, and Anthropic's and Ollama's APIs are translated to it,
also for engines that speak one of them themselves. llama-server, vLLM and Ollama each have a
/v1/messages of their own, and they differ: Ollama's ignores `tool_choice`, none refuses what it
does not know, and images of 2024 have none. One translation behaves the same on all of them, after
a change of the engine too, counts tokens and cuts streams off as for OpenAI's clients, and costs
less than a millisecond for a request.
"""
