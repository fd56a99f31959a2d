"""A configuration file says each thing once and clearly, or it is refused with file and line."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_energy.config.loader import read_merged
from inference_energy.config.yaml_file import MAX_BYTES, read_yaml_file
from inference_energy.errors import InputError

ROOT = Path(__file__).parents[2]
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def refusal(file: Path, content: str | bytes) -> str:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_yaml_file(file)
    text = str(caught.value)
    assert text.startswith(str(file))
    return text.removeprefix(str(file))


@pytest.mark.parametrize(
    ("content", "key", "lines"),
    [
        ("seed: 1\nrun: [a]\nseed: 2\n", "seed", (1, 3)),
        ("windows:\n  low: {duration_s: 30}\n  low: {duration_s: 40}\n", "windows.low", (2, 3)),
        ("idle: {cold_s: 1, post_s: 2,\n  cold_s: 3}\n", "idle.cold_s", (1, 2)),
        ("sessions:\n- a: 1\n  a: 2\n", "sessions.0.a", (2, 3)),
        ("idle:\n  cold_s: 1\n  'cold_s': 1\n", "idle.cold_s", (2, 3)),
        ("a: &a {x: 1}\nb: &b {y: 1}\nc:\n  <<: *a\n  <<: *b\n", "c.<<", (4, 5)),
        ('{"windows": {"low": {"duration_s": 30},\n "low": {"duration_s": 40}}}', "windows.low", (1, 2)),
        ('{\n\t"seed": 1,\n\t"seed": 2\n}', "seed", (2, 3)),
    ],
)
def test_a_key_written_twice_is_named_with_both_lines(
    file: Path, content: str, key: str, lines: tuple[int, int]
) -> None:
    text = refusal(file, content)
    assert text.startswith(f":{lines[1]}: the key `{key}` is there twice")
    assert f"line {lines[0]} and in line {lines[1]}" in text


def test_a_key_in_another_mapping_and_one_that_overrides_a_merged_one_are_fine(file: Path) -> None:
    file.write_text("a: &a {x: 1, y: 2}\nb:\n  x: 3\n  <<: *a\nc: {x: 1}\n")
    assert read_yaml_file(file).content == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 1}}


@pytest.mark.parametrize(
    ("content", "line", "part"),
    [
        ("a: 1\nb: on\n", 2, "true or false"),
        ("zone: NO\n", 1, "'NO'"),
        ("no: 1\n", 1, "true or false"),
        ("a: 010\n", 1, "octal"),
        ("a: 1:30\n", 1, "base 60"),
        ("a: .inf\n", 1, "finite"),
        ("a: -.NaN\n", 1, "finite"),
        ("a: 1e400\n", 1, "too large"),
        (f"a: {'9' * 5000}\n", 1, "too large"),
        ("a: 9223372036854775808\n", 1, "too large"),
        ("1: a\n", 1, "in quotes"),
        ("? [a]\n: b\n", 1, "a key is a text"),
        (f"{'k' * 300}: 1\n", 1, "200 printable characters"),
        ('"a\\x1b[2J": 1\n', 1, "printable"),
        ('a: "x\\0y"\n', 1, "NUL"),
        ("a: 1\nb: \x07\n", 2, "U+0007"),
        ("a:\n\tb: 1\n", 2, "a tab"),
        ("a: [1\n", 2, "not YAML"),
        ("a: *b\n", 1, "alias"),
        ("a: !!python/object/apply:os.system [x]\n", 1, "no meaning"),
        ("a: !!timestamp 2024-01-01\n", 1, "no meaning"),
        ("a: 1\n---\nb: 1\n", 2, "second document"),
        ("a: &a [*a]\n", 1, "aliases"),
        ("a: " + "[" * 5000, 1, "levels deep"),
        ("\n".join(" " * n + "a:" for n in range(200)), 32, "levels deep"),
        ("a: &a {x: 1}\nb: &b {x: 2}\nc: {<<: [*a, *b]}\n", 3, "two values"),
        (BOMB, 1, "aliases stand for"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        ("a: 1\n".encode("utf-16"), 1, "not UTF-8"),
    ],
)
def test_what_is_ambiguous_or_hostile_is_refused_with_its_line(
    file: Path, content: str | bytes, line: int, part: str
) -> None:
    text = refusal(file, content)
    assert text.startswith(f":{line}: "), text
    assert part in text
    assert len(text) < 400


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "empty"),
        ("# nothing but a comment\n", "empty"),
        ("- a\n", "a mapping"),
        ("just words\n", "a mapping"),
        ("a: 1\n" + "#" * MAX_BYTES, "larger than"),
    ],
)
def test_a_file_without_a_mapping_at_its_top_is_refused(file: Path, content: str, part: str) -> None:
    assert part in refusal(file, content)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path, part in ((tmp_path / "absent.yaml", "no such file"), (tmp_path, "directory"), (Path("a\0b"), "name")):
        with pytest.raises(InputError, match=part):
            read_yaml_file(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("-1E-2", -0.01),
        (".5", 0.5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0", 0),
        ("~", None),
        ("", None),
        ("False", False),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("'on'", "on"),
        ("'010'", "010"),
        ("!!str 010", "010"),
        ("8000:8000", "8000:8000"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\ud83d"', "\ufffd"),
    ],
)
def test_numbers_are_those_of_yaml_1_2_and_texts_stay(file: Path, text: str, value: Any) -> None:
    file.write_text(f"\ufeffa: {text}\n")
    assert read_yaml_file(file).content == {"a": value}


def test_json_and_the_shipped_files_say_what_other_readers_read(file: Path) -> None:
    for path in (ROOT / "config.yaml", *(ROOT / "config").glob("*.yaml")):
        assert read_yaml_file(path).content == yaml.safe_load(path.read_text())
    content = yaml.safe_load((ROOT / "config.yaml").read_text())
    file.write_text(json.dumps(content, indent="\t"))
    assert read_yaml_file(file).content == content


def test_a_wrong_value_is_named_with_the_line_of_the_file_that_has_it(file: Path) -> None:
    file.write_text("windows:\n  low:\n    arrival: {rate_qps: fast}\n    duration_s: true\nidle:\n")
    with pytest.raises(InputError) as caught:
        read_merged([ROOT / "config.yaml", file])
    lines = str(caught.value).splitlines()
    assert any("windows.low.duration_s: write a number, not true" in line and f"({file}:4)" in line for line in lines)
    assert any(line.startswith("  idle: write a mapping") and f"({file}:5)" in line for line in lines)
    assert not any("Traceback" in line for line in lines)
