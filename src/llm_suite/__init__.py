"""Natural-language tests of a chat API: conversations in YAML, and what their answers must be.

Runs on the control machine, or wherever a host's chat API can be reached. It imports the client of
`llm_provider`, and no other package of the project.
"""
