"""JSON of foreign origin is decoded or refused with ValueError, whatever it holds."""

import json

from fuzzing import damaged, fuzz

from inference_energy.contracts.outside import decode_json

DOCUMENTS = [
    json.dumps(
        {"models": [{"id": "a", "size": 1.5e9, "tags": ["x", None, True], "deep": {"a": {"b": [1, 2]}}}]}
    ).encode(),
    b'{"text": "h\\u00e4\\ud83d\\ude00", "n": -1e-5}',
]


def test_foreign_json_is_decoded_to_what_can_be_written_again_or_refused():
    def check(content: bytes) -> None:
        try:
            value = decode_json(content)
        except ValueError as error:
            assert len(str(error)) < 500
            return
        json.dumps(value, ensure_ascii=False).encode()

    fuzz(damaged(DOCUMENTS), check)
