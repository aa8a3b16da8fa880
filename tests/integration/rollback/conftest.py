"""The board that is changed, shared with the other suite that changes it under load."""

from tests.integration.load import board, settled

__all__ = ["board", "settled"]
