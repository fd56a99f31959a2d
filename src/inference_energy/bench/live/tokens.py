"""Tokenizer of the bench: one token for each word.

Words come from the model's folder if its tokenizer has one token for each word, as the toolkit's dummy models have.
Other tokenizers are not run here; each word then counts as a token, with an id that follows from its letters.
"""

import json
import zlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

STRIDE = 7919
REMEMBERED = 200_000


class Tokenizer:
    """Texts to token ids and back, and the words that the model generates.

    Args:
        vocabulary: number of token ids.
        words: the id of each word; None: id n is the word `tn`, and other words get ids by their checksum.
        unknown: the id of words that are not among `words`.
    """

    def __init__(self, vocabulary: int, words: Mapping[str, int] | None = None, unknown: int = 0) -> None:
        self.vocabulary = vocabulary
        self._named = words is not None
        self._ids: dict[str, int] = dict(words or {})
        self._words = {token: word for word, token in self._ids.items()}
        self._unknown = unknown
        self._json: dict[int, bytes] = {}

    @classmethod
    def from_folder(cls, folder: Path | None, vocabulary: int) -> "Tokenizer":
        """Return the tokenizer of a model's folder if it has one token for each word, else the bench's own."""
        try:
            content = json.loads((folder / "tokenizer.json").read_text()) if folder is not None else {}
            model = content.get("model") or {}
            split = (content.get("pre_tokenizer") or {}).get("type")
            if model.get("type") != "WordLevel" or split not in ("WhitespaceSplit", "Whitespace"):
                return cls(vocabulary)
            words = {str(word): int(token) for word, token in model["vocab"].items()}
            return cls(vocabulary, words, words.get(str(model.get("unk_token")), 0))
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return cls(vocabulary)

    @property
    def named(self) -> bool:
        """Whether the words are those of the model's folder."""
        return self._named

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        ids = self._ids
        if self._named:
            unknown = self._unknown
            return [ids.get(word, unknown) for word in text.split()]
        token_ids = []
        for word in text.split():
            token = ids.get(word)
            if token is None:
                if len(ids) >= REMEMBERED:
                    ids.clear()
                token = ids[word] = self._of_letters(word)
            token_ids.append(token)
        return token_ids

    def word(self, token: int) -> str:
        """The word of a token id."""
        return self._words.get(token) or f"t{token}"

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids."""
        return " ".join(self.word(token) for token in token_ids)

    def token_json(self, token: int) -> bytes:
        """A generated token's text, a space and its word, as JSON with its quotes."""
        text = self._json.get(token)
        if text is None:
            text = self._json[token] = json.dumps(" " + self.word(token)).encode()
        return text

    def first_token(self, content: str | Sequence[int]) -> int:
        """Return the first token id of the answer to a prompt, which follows from the prompt. See `nth`."""
        data = content.encode() if isinstance(content, str) else array("q", content).tobytes()
        return zlib.crc32(data) % self.vocabulary

    def nth(self, first: int, index: int) -> int:
        """Return the token id at an index, from 0, of an answer that begins with `first`."""
        return (first + STRIDE * index) % self.vocabulary

    def _of_letters(self, word: str) -> int:
        if word[0] == "t" and word[1:].isascii() and word[1:].isdigit() and int(word[1:]) < self.vocabulary:
            return int(word[1:])
        return zlib.crc32(word.encode()) % self.vocabulary
