"""`analyze` on tables of other tools: status words, times, and the ways to write a CSV."""

from pathlib import Path

import pytest
from foreign_logs import REQUESTS, T0, Folder, iso, one_device, timed_power, timed_requests, with_column
from rich.cells import cell_len
from test_chain import invoke

from inference_energy.analysis.csv_log import read_zone
from inference_energy.errors import InputError


@pytest.fixture
def logs(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.parametrize(
    "word",
    ["200.0", "200", "204", "True", "true", "1", "1.0", "completed", "success", "SUCCESS", "OK", "finished", "length"],
)
def test_words_of_success(logs, word):
    assert logs.analyze(one_device(), with_column("status", [word] * 20)).requests.ok == 20


@pytest.mark.parametrize(
    "word",
    ["false", "False", "0", "error", "ERROR", "500", "500.0", "429", "timeout", "timed-out", "aborted", "failed"],
)
def test_words_of_failure(logs, word):
    other = "200" if word[0] in "45" else "1" if word == "0" else "ok"
    document = logs.analyze(one_device(), with_column("status", [word, *[other] * 19]))
    assert (document.requests.ok, document.requests.failed) == (19, 1)


@pytest.mark.parametrize(
    ("name", "word"),
    [("success", "False"), ("http_status", "503"), ("error", "connection reset"), ("outcome", "abort")],
)
def test_other_columns_of_the_outcome(logs, name, word):
    good = {"success": "True", "http_status": "200", "error": "", "outcome": "ok"}[name]
    document = logs.analyze(one_device(), with_column(name, [word, *[good] * 19]))
    assert (document.requests.ok, document.requests.failed) == (19, 1)


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("is_error", "True", "False"),
        ("failed", "1", "0"),
        ("Status", "error", "ok"),
        ("statusCode", "503", "200"),
        ("error_type", "TimeoutError", ""),
        ("timed_out", "true", "false"),
    ],
)
def test_a_column_that_may_tell_failures_and_is_not_read_is_refused(logs, name, bad, good):
    for words in ([bad, *[good] * 19], [bad] * 20):
        assert f"column {name} may say which" in logs.refusal(one_device(), with_column(name, words))
    stated = with_column("status", ["ok"] * 20).splitlines()
    both = "\n".join(f"{line},{cell}" for line, cell in zip(stated, [name, *[good] * 20], strict=True)) + "\n"
    assert logs.analyze(one_device(), both).requests.ok == 20


@pytest.mark.parametrize("word", ["abort", '"{""type"": ""abort"", ""message"": ""x""}"', "FinishReason.ERROR"])
def test_a_finish_reason_within_other_words_is_a_failure(logs, word):
    document = logs.analyze(one_device(), with_column("finish_reason", [word, *["stop"] * 19]))
    assert (document.requests.ok, document.requests.failed) == (19, 1)


def test_times_rounded_by_their_exponent_are_refused(logs):
    rounded = REQUESTS.replace(f"{T0 + 5},", "1.7000e+09,")
    assert "requests.csv:2: column timestamp has times rounded" in logs.refusal(one_device(), rounded)
    written = "\n".join(
        [REQUESTS.splitlines()[0], *(f"{T0 + 5 + i:.12e},100,50,1.0" for i in range(20))],
    )
    assert logs.energy_j(one_device(), written) == pytest.approx(6000, rel=1e-3)


def test_tokens_that_no_request_has_are_refused(logs):
    assert "no count of tokens" in logs.refusal(one_device(), REQUESTS.replace(",50,", ",1e12,", 1))


def test_an_answer_that_never_came_leaves_a_gap_among_the_codes(logs):
    document = logs.analyze(one_device(), with_column("status", ["", *["200.0"] * 19]))
    assert (document.requests.ok, document.requests.failed) == (19, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["weird"] * 3 + ["ok"] * 17, "'weird' (3 times, first in line 2)"),
        ([""] + ["ok"] * 19, "empty (1 times, first in line 2)"),
        (["ok"] * 10 + ["301"] + ["200"] * 9, "'301' (1 times, first in line 12)"),
        (["0"] * 20, "'0' (20 times"),
        (["7"] * 20, "'7' (20 times"),
    ],
)
def test_unknown_words_are_listed_with_count_and_line(logs, words, said):
    assert said in logs.refusal(one_device(), with_column("status", words))


def test_without_a_status_the_assumption_is_stated(logs):
    assert any("no column status" in text for text in logs.analyze(one_device()).assumptions)
    stated = logs.analyze(one_device(), with_column("status", ["ok"] * 20)).assumptions
    assert not any("no column status" in text for text in stated)


@pytest.mark.parametrize("power_unit", [1, 10**3, 10**6, 10**9])
@pytest.mark.parametrize("request_unit", [1, 10**3, 10**6, 10**9])
def test_unix_time_in_any_unit(logs, power_unit, request_unit):
    power = timed_power(
        lambda i: f"{(T0 + i / 10) * power_unit:.1f}" if power_unit == 1 else (T0 * 10 + i) * power_unit // 10
    )
    requests = timed_requests(lambda i: (T0 + 5 + i) * request_unit)
    assert logs.energy_j(power, requests) == pytest.approx(6000, rel=1e-3)


@pytest.mark.parametrize("head", ["time_ms", "timestamp_ms", "Time (ms)"])
def test_time_since_a_start_in_the_unit_of_its_name(logs, head):
    power, requests = timed_power(lambda i: i * 100, head), timed_requests(lambda i: 5 + i)
    document = logs.analyze(power, requests)
    assert document.figures["energy_total_j"].value == pytest.approx(6000, rel=1e-3)
    assert any("both logs began together" in text for text in document.assumptions)


def test_a_time_since_a_start_whose_unit_cannot_be_seconds_is_refused(logs):
    assert "time_ms" in logs.refusal(timed_power(lambda i: i * 100), timed_requests(lambda i: 5 + i))


@pytest.mark.parametrize(
    ("power_form", "request_form", "zone"),
    [
        ("%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", None),
        ("%Y/%m/%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S", None),
        ("%Y-%m-%dT%H:%M:%S.%f|Z", "%Y-%m-%d %H:%M:%S|+00:00", None),
        ("%Y-%m-%dT%H:%M:%S.%f|+0000", "%Y-%m-%d %H:%M:%S|UTC", None),
        ("%Y/%m/%d %H:%M:%S.%f", "unix", "UTC"),
        ("%Y-%m-%d %H:%M:%S.%f|Z", "unix", None),
    ],
)
def test_dates(logs, power_form, request_form, zone):
    def text(seconds: float, form: str) -> str:
        form, _, suffix = form.partition("|")
        return str(T0 + seconds) if form == "unix" else iso(seconds, form) + suffix

    power = timed_power(lambda i: text(i / 10, power_form), "timestamp")
    requests = timed_requests(lambda i: text(5 + i, request_form))
    document = logs.analyze(power, requests, zone=read_zone(zone) if zone else None)
    assert document.figures["energy_total_j"].value == pytest.approx(6000, rel=1e-3)
    is_local = "|" not in power_form and zone is None
    assert any("no zone" in text for text in document.assumptions) == is_local


@pytest.mark.parametrize(
    ("power", "requests", "said"),
    [
        (lambda i: f"01/05/2024 10:00:{i // 10:02}.{i % 10}", lambda i: T0 + 5 + i, "day and month"),
        (lambda i: f"13.05.2024 10:00:{i // 10:02}.{i % 10}", lambda i: T0 + 5 + i, "day and month"),
        (lambda i: iso(i / 10, "%Y/%m/%d %H:%M:%S.%f"), lambda i: T0 + 5 + i, "--timezone"),
        (lambda i: i / 10, lambda i: T0 + 5 + i, "times since a start"),
        (lambda i: iso(i / 10, "%Y-%m-%d %H:%M:%S.%f") + ("Z" if i % 2 else ""), lambda i: T0 + i, "without a zone"),
        (lambda i: (T0 * 10 + i) * 100 if i % 2 else T0 + i / 10, lambda i: T0 + 5 + i, "Unix times in s in line 2"),
        (lambda i: 20_240_501_100_000 + i, lambda i: T0 + 5 + i, "neither Unix time"),
        (lambda i: 45_000 + i, lambda i: T0 + 5 + i, "times since a start"),
        (lambda i: f"10:00:{i // 10:02}", lambda i: T0 + 5 + i, "no time"),
        (lambda i: f"2024-02-30 10:00:{i // 10:02}", lambda i: T0 + 5 + i, "does not exist"),
        (lambda i: T0 + 1e6 + i / 10, lambda i: T0 + 5 + i, "another time than the requests"),
        (lambda i: -1 if i == 7 else i / 10, lambda i: 5 + i, ":9: column time has a time below zero"),
        (lambda i: 1e300, lambda i: 5 + i, "neither Unix time"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_times_that_are_ambiguous_or_do_not_fit_are_refused(logs, power, requests, said):
    assert said in logs.refusal(timed_power(power), timed_requests(requests))


def test_an_hour_that_a_zone_has_twice_is_refused(logs):
    power = timed_power(lambda i: f"2023-10-29 02:30:{i // 10:02}.{i % 10}")
    said = logs.refusal(power, timed_requests(lambda i: T0 + i), zone=read_zone("Europe/Berlin"))
    assert "twice or never" in said


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.encode("utf-16"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace(".", ";").replace(",", "|").replace(";", "."),
        lambda text: text.replace(",", ";").replace(".", ","),
        lambda text: text.replace(",", ", ").replace("\n", "\n\n"),
        lambda text: "\n".join([text.splitlines()[0], *sorted(text.splitlines()[1:], key=hash)]),
        lambda text: text.replace("time,power_W", "time,power_W,note").replace("\n17", ',"two\nlines"\n17'),
    ],
    ids=["bom", "utf16", "crlf", "semicolon", "tab", "bar", "decimal comma", "blanks", "out of order", "quoted"],
)
def test_other_ways_to_write_the_same_table(logs, damage):
    text = one_device()
    if "note" in (damage(text) if isinstance(damage(text), str) else ""):
        text = text.rstrip("\n") + "\n1700000040.0,300\n"
        power = damage(text).replace('note,"two\nlines"', "note").rstrip("\n") + ",x\n"
    else:
        power = damage(text)
    assert logs.energy_j(power) == pytest.approx(6000, rel=1e-3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"time,power_W\n1700000000,3\xff\n", "power.csv:2: not UTF-8"),
        (b"time,power_W\n1700000000,3\n1700000001,\x003\n", "power.csv:3: has a NUL"),
        (b"time,power_W\n1700000000,3\n1,2,3\n", "power.csv:3: has 3 cell(s), its header 2"),
        (b"time,power_W\n1700000000,3\n1700000000.1\n", "power.csv:3: has 1 cell(s), its header 2"),
        (b"time,power_W\n", "no row has both"),
        (b"time,power_W,power_W\n1,2,3\n", "column power_W twice"),
        (b"when,power_W\n1,2\n", "lacks the column(s) time"),
        (b"epoch,elapsed,power_W\n1,2,3\n", "epoch, elapsed"),
        (b'time,power_W\n1700000000,"3\n', "power.csv"),
        (b"a" * 10**6, "cannot be read as CSV"),
        (b"," * 10**6, "columns"),
    ],
)
def test_files_that_are_no_log_are_refused(logs, content, said):
    message = logs.refusal(content)
    assert said in message
    assert len(message) < 1500


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("latency", "-1", ":2: column latency has negative"),
        ("latency", "1e300", ":2: column latency has latencies of days"),
        ("latency", "nan", ":2: column latency has no value"),
        ("prompt_tokens", "-5", ":2: column prompt_tokens has something that is no count"),
        ("prompt_tokens", "1e18", ":2: column prompt_tokens has something that is no count"),
        ("completion_tokens", "5.5", ":2: column completion_tokens has something that is no count"),
        ("completion_tokens", "inf", ":2: column completion_tokens has infinite"),
        ("timestamp", "", ":2: column timestamp has empty"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_cells_of_requests_that_cannot_be_are_refused_with_their_line(logs, column, cell, said):
    head, first, *rest = REQUESTS.splitlines()
    cells = first.split(",")
    cells[head.split(",").index(column)] = cell
    assert said in logs.refusal(one_device(), "\n".join([head, ",".join(cells), *rest]) + "\n")


def test_latency_in_ms_by_its_name(logs):
    requests = REQUESTS.replace("latency", "latency_ms").replace(",1.0", ",1000")
    assert logs.energy_j(one_device(), requests) == pytest.approx(6000, rel=1e-3)


def test_no_name_or_number_is_cut_in_a_narrow_terminal(logs, monkeypatch):
    logs.analyze(one_device())
    monkeypatch.setenv("COLUMNS", "40")
    shown = invoke(
        *("analyze", "--power-log", logs.power, "--requests-log", logs.requests, "--boundary", "gpu"),
        *("--output", logs.power.with_name("o.json"), "--idle-power", 70, "--intensity", 344),
    )
    assert "energy_active_per_output_token_j" in shown and "carbon_per_1k_output_tokens_g" in shown
    assert "…" not in shown
    assert max(map(cell_len, shown.splitlines())) > 40


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "+99:00", "\0"])
def test_a_zone_that_is_none_is_refused(name):
    with pytest.raises(InputError, match="no such time zone"):
        read_zone(name)
