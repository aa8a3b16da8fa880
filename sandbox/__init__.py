"""The simulated fleet: boards, an image registry and a model hub, as containers on this machine."""
