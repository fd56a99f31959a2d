"""Prompts from files, and the toolkit's own graded questions.

- Text: one prompt a line.
- ShareGPT: a JSON list of objects with `conversations`, each of `from` and `value`.
- JSON lines: an object a line with `prompt`, `token_ids` or `messages`, and optionally `answer` and `max_tokens`.

The questions are short, of several kinds, written for the toolkit and under its licence, Apache-2.0. They show the cost
of a right answer, and which of two models answers more of them; they are no benchmark of knowledge. Each asks for one
form of answer: a letter, a number, or a word. The graders are in `metrics.quality`.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inference_energy.config.load.prompts import FilePrompts, JsonlPrompts, QuestionPrompts, ShareGptPrompts
from inference_energy.config.load.workload import Workload
from inference_energy.errors import InputError, Notice, Setting
from inference_energy.plan.arrivals.processes import Starts
from inference_energy.plan.prompts.from_records import Draws, Message, Record, RecordedSource, in_turns
from inference_energy.plan.prompts.protocol import Choice, ContentInputs, batches, contents_table, in_rounds
from inference_energy.plan.tables import NULL, Line


class TextSource:
    """Lines of a text file, stripped and without empty ones."""

    def __init__(self, config: FilePrompts, key: str, random: np.random.Generator) -> None:
        """Read the file.

        Raises:
            InputError: the file cannot be read or has no prompt.
        """
        try:
            lines = [line.strip() for line in Path(config.path).read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{config.path} cannot be read: {error}", key=f"{key}.path") from error
        if not any(lines):
            raise InputError(f"{config.path} holds no prompt; write one a line", key=f"{key}.path")
        self._lines = pa.array([line for line in lines if line], pa.large_string())
        self._config = config
        self._random = random

    @property
    def identity(self) -> tuple[str, ...]:
        """See `Contents`."""
        return ("file", self._config.path)

    @property
    def size(self) -> int:
        """See `Contents`."""
        return len(self._lines)

    def choose(self, starts: Starts) -> Choice:
        """See `Source`."""
        nulls = np.full(starts.count, NULL)
        chosen = in_rounds(len(self._lines), starts.count, self._config.order, self._random)
        return Choice(np.ones(starts.count, np.int64), chosen, nulls, nulls)

    def contents(self, prompts: NDArray[np.int64], inputs: ContentInputs) -> Iterator[pa.Table]:
        """See `Contents`."""
        for part in batches(prompts):
            yield contents_table(len(part), text=self._lines.take(pa.array(part)))


ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
}


def sharegpt_source(config: ShareGptPrompts, workload: Workload, key: str, draws: Draws) -> RecordedSource:
    """Return the conversations of a ShareGPT file; their first user message if the workload has no `conversations`.

    Raises:
        InputError: the file cannot be read, is of another form, or has no conversation with a user's message.
    """
    key = f"{key}.path"
    try:
        content = json.loads(Path(config.path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{config.path} cannot be read: {error}", key=key) from error
    except json.JSONDecodeError as error:
        raise InputError(f"{config.path}: not JSON: {error}", key=key) from error
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise InputError(f"{config.path}: a list of objects with `conversations` is expected", key=key)
    if content and not any("conversations" in entry for entry in content):
        raise InputError(f"{config.path}: no object has `conversations`; found: {', '.join(content[0])}", key=key)
    conversations = [in_turns(_sharegpt_messages(entry.get("conversations"))) for entry in content]
    records = [_sharegpt_record(turns, workload) for turns in conversations if turns]
    if not records:
        raise InputError(f"{config.path} holds no conversation with a message `from` human", key=key)
    total = len(conversations)
    left_out = total - len(records)
    notes = (Notice(f"{config.path}: {left_out} of {total} conversations without a user's message are left out", key),)
    return RecordedSource(
        ("sharegpt", config.path),
        records,
        config.order,
        draws,
        conversations=workload.conversations,
        history=workload.history,
        notes=notes if left_out else (),
    )


def _sharegpt_record(turns: list[list[Message]], workload: Workload) -> Record:
    return Record(turns=turns) if workload.conversations else Record(text=turns[0][-1]["content"])


def _sharegpt_messages(value: Any) -> list[Message]:
    """Return the messages before the first invalid one, since later ones would lack its context."""
    messages: list[Message] = []
    for entry in value if isinstance(value, list) else []:
        role = ROLES.get(str(entry.get("from", "")).lower()) if isinstance(entry, dict) else None
        text = entry.get("value") if isinstance(entry, dict) else None
        if role is None or not isinstance(text, str) or not text.strip():
            break
        messages.append({"role": role, "content": text})
    return messages


CONTENT = ("prompt", "token_ids", "messages")
LINE_KEYS = {*CONTENT, "answer", "max_tokens"}


def jsonl_source(config: JsonlPrompts, workload: Workload, key: str, draws: Draws) -> RecordedSource:
    """Return the prompts of a JSONL file.

    Raises:
        InputError: the file cannot be read or a line is invalid; the message names the line and the remedy.
    """
    records: list[Record] = []
    ignored: Counter[str] = Counter()
    try:
        with Path(config.path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    source_line = Line(f"{config.path}:{number}", f"{key}.path")
                    content = _object(line, source_line)
                    ignored.update(name for name in content if name not in LINE_KEYS)
                    records.append(_record(content, workload, source_line))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{config.path} cannot be read: {error}", key=f"{key}.path") from error
    if not records:
        raise InputError(f"{config.path} holds no prompt; write a JSON object a line", key=f"{key}.path")
    notes = [Notice(f"`{name}` is ignored, in {count} lines", f"{key}.path") for name, count in sorted(ignored.items())]
    return RecordedSource(
        ("jsonl", config.path),
        records,
        config.order,
        draws,
        conversations=workload.conversations,
        history=workload.history,
        notes=tuple(notes),
    )


def _object(text: str, line: Line) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise line.error(f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise line.error('an object is expected, such as {"prompt": "..."}')
    return content


def _record(content: dict[str, Any], workload: Workload, line: Line) -> Record:
    kinds = [name for name in CONTENT if content.get(name) is not None]
    if len(kinds) != 1:
        raise line.error(f"write exactly one of {', '.join(CONTENT)}; found: {', '.join(content) or 'nothing'}")
    max_tokens, answer = content.get("max_tokens"), content.get("answer")
    if max_tokens is not None and (not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1):
        raise line.error(f"max_tokens: a whole number from 1 up is expected, got {max_tokens!r}")
    if isinstance(answer, dict | list):
        raise line.error("answer: a text or a number is expected")
    shared = {"max_tokens": max_tokens, "answer": None if answer is None else str(answer), "line": line}
    value = content[kinds[0]]
    match kinds[0]:
        case "prompt":
            return _prompt(value, workload, line, shared)
        case "token_ids":
            return _token_ids(value, workload, line, shared)
        case _:
            return _messages(value, workload, line, shared)


def _prompt(value: Any, workload: Workload, line: Line, shared: dict[str, Any]) -> Record:
    if not isinstance(value, str) or not value:
        raise line.error("prompt: a text is expected; ids of tokens belong in token_ids")
    if workload.conversations:
        return Record(turns=[[{"role": "user", "content": value}]], **shared)
    return Record(text=value, **shared)


def _token_ids(value: Any, workload: Workload, line: Line, shared: dict[str, Any]) -> Record:
    all_integers = isinstance(value, list) and all(
        isinstance(token, int) and not isinstance(token, bool) for token in value
    )
    if not all_integers or not value or min(value) < 0:
        raise line.error("token_ids: a list of whole numbers from 0 up is expected")
    if workload.api == "chat":
        raise line.error("a chat takes no token ids, but prompt or messages", Setting("api", "completions"))
    return Record(token_ids=value, **shared)


def _messages(value: Any, workload: Workload, line: Line, shared: dict[str, Any]) -> Record:
    if workload.api != "chat":
        raise line.error("messages go to a chat", Setting("api", "chat"))
    messages: list[Message] = value if isinstance(value, list) else []
    if not messages or not all(
        isinstance(message, dict)
        and {*message} == {"role", "content"}
        and all(isinstance(part, str) for part in message.values())
        for message in messages
    ):
        raise line.error("messages: a list of objects with the texts role and content is expected")
    turns = in_turns(messages)
    if not turns:
        raise line.error("messages: no message has the role user")
    if workload.conversations is None:
        # One request: everything up to the last user message, whatever the history.
        return Record(turns=[[message for turn in turns for message in turn]], **shared)
    return Record(turns=turns, **shared)


_NUMBER = "Answer with the number only.\nAnswer:"
_LETTER = "Answer with the letter only.\nAnswer:"
_WORD = "Answer with one word only.\nAnswer:"

ARITHMETIC = (
    ("What is 17 + 25?", "42"),
    ("What is 83 - 47?", "36"),
    ("What is 12 times 11?", "132"),
    ("What is 96 divided by 8?", "12"),
    ("What is 15 percent of 200?", "30"),
    ("What is 7 squared?", "49"),
    ("What is the square root of 144?", "12"),
    ("What is 2 to the power of 10?", "1024"),
    ("What is 1000 - 375?", "625"),
    ("What is 3/4 as a decimal number?", "0.75"),
    ("What is -8 + 3?", "-5"),
    ("What is the remainder when 29 is divided by 6?", "5"),
)
WORD_PROBLEMS = (
    ("A train travels 60 km in one hour. How many km does it travel in 3.5 hours?", "210"),
    ("A box holds 6 eggs. How many boxes are needed for 45 eggs?", "8"),
    ("Mara has 5 red pens and three times as many blue pens. How many pens does she have in all?", "20"),
    ("A shirt costs 40 euros and is reduced by 25 percent. How many euros does it cost now?", "30"),
    ("A pump fills 12 litres a minute. How many minutes does it take to fill 180 litres?", "15"),
    ("A film begins at 19:40 and ends at 21:25. How many minutes does it last?", "105"),
    ("Of 30 pupils, two fifths walk to school. How many do not walk?", "18"),
    ("A rectangle is 9 m long and 4 m wide. What is its perimeter in m?", "26"),
    ("A lamp of 10 W burns for 50 hours. How many kWh does it take?", "0.5"),
    ("Ben is 4 years older than Ida. Together they are 28. How old is Ben?", "16"),
    ("A rope of 7.5 m is cut into pieces of 0.5 m. How many pieces are there?", "15"),
    ("Three bakers bake 90 loaves in 2 hours. How many loaves does one of them bake in an hour?", "15"),
)
CHOICES = (
    ("Which planet is closest to the Sun?", ("Venus", "Mercury", "Mars", "Earth"), "B"),
    ("Which gas do plants take up for photosynthesis?", ("oxygen", "nitrogen", "carbon dioxide", "helium"), "C"),
    ("Which of these is a mammal?", ("dolphin", "shark", "trout", "frog"), "A"),
    ("Which unit measures electric current?", ("volt", "watt", "ohm", "ampere"), "D"),
    ("Which of these numbers is prime?", ("21", "27", "29", "33"), "C"),
    ("At which temperature does water boil at sea level?", ("50 °C", "100 °C", "150 °C", "200 °C"), "B"),
    ("Which continent is the Sahara in?", ("Africa", "Asia", "Europe", "South America"), "A"),
    ("Which of these is not a programming language?", ("Python", "Rust", "Go", "Ethernet"), "D"),
    ("Which organ pumps blood through the body?", ("lung", "liver", "heart", "kidney"), "C"),
    ("Which is the largest ocean?", ("Atlantic", "Indian", "Arctic", "Pacific"), "D"),
    ("Which metal is liquid at room temperature?", ("mercury", "iron", "copper", "tin"), "A"),
    ("Which of these fractions is the largest?", ("1/2", "2/3", "3/5", "5/9"), "B"),
    ("Which instrument measures air pressure?", ("thermometer", "barometer", "altimeter scale", "compass"), "B"),
    ("What is a shape with five sides called?", ("hexagon", "square", "pentagon", "octagon"), "C"),
    ("Which of these words is a verb?", ("quickly", "green", "house", "run"), "D"),
    ("Which of these is a renewable source of energy?", ("wind", "coal", "oil", "natural gas"), "A"),
)
WORDS = (
    ("What is the capital of France?", "Paris"),
    ("What is the capital of Japan?", "Tokyo"),
    ("What is the opposite of hot?", "cold"),
    ("What is the opposite of early?", "late"),
    ("What is the plural of mouse, the animal?", "mice"),
    ("What is the past tense of go?", "went"),
    ("Which day comes after Tuesday?", "Wednesday"),
    ("Which month comes before August?", "July"),
    ("Which colour do blue and yellow paint make when mixed?", "green"),
    ("What is frozen water called?", "ice"),
    ("What is a young dog called?", "puppy"),
    ("Which language is spoken in Brazil?", "Portuguese"),
    ("Which chemical element has the symbol O?", "oxygen"),
    ("Which star does the Earth orbit?", "Sun"),
    ("Spell the word LEVEL backwards.", "level"),
    ("Which animal gives wool: the sheep or the snake?", "sheep"),
)
SEQUENCES = (
    ("Which number comes next: 2, 4, 8, 16?", "32"),
    ("Which number comes next: 3, 6, 9, 12?", "15"),
    ("Which number comes next: 1, 1, 2, 3, 5, 8?", "13"),
    ("Which number comes next: 100, 90, 81, 73?", "66"),
    ("Which number comes next: 1, 4, 9, 16, 25?", "36"),
    ("How many letters are in the word banana?", "6"),
    ("How many times does the letter s occur in the word mississippi?", "4"),
    ("How many days are in a leap year?", "366"),
    ("How many minutes are in 2.5 hours?", "150"),
    ("How many sides do three triangles have in all?", "9"),
)


def questions() -> list[tuple[str, str]]:
    """Return the full text of every question, with its right answer."""
    numbers = [(f"{text} {_NUMBER}", right) for text, right in (*ARITHMETIC, *WORD_PROBLEMS, *SEQUENCES)]
    letters = [
        (
            f"{text}\n"
            + "\n".join(f"{name}) {choice}" for name, choice in zip("ABCD", choices, strict=True))
            + f"\n{_LETTER}",
            right,
        )
        for text, choices, right in CHOICES
    ]
    words = [(f"{text} {_WORD}", right) for text, right in WORDS]
    return [*numbers, *letters, *words]


def question_source(config: QuestionPrompts, draws: Draws) -> RecordedSource:
    """Return the questions as a source of prompts."""
    records = [Record(text=text, answer=right) for text, right in questions()]
    return RecordedSource(("questions",), records, config.order, draws, conversations=None, history="actual")
