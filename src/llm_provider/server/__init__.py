"""The chat API: what receives requests, admits them and answers them."""
