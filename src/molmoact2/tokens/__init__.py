"""Words: what is written to the network and read from it. Needs no torch."""

from molmoact2.tokens.action import ActionDecodeError, ActionTokenizer
from molmoact2.tokens.prompt import Style, normalize_language
from molmoact2.tokens.vocabulary import TokenFamily, Vocabulary

__all__ = ["ActionDecodeError", "ActionTokenizer", "Style", "TokenFamily", "Vocabulary", "normalize_language"]
