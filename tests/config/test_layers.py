"""Files laid over one another: changes are merged, definitions replace, and figures go with their sources."""

from pathlib import Path

import pytest

from inference_energy.config.loader import layers_of_run, read_merged
from inference_energy.config.root import SHIPPED_INTENSITY, Config
from inference_energy.errors import InputError

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "config.yaml"
FRANCE = "zone: FR, intensity_g_per_kwh: 44, basis: lifecycle, source: RTE 2024"


def laid(tmp_path: Path, *texts: str) -> Config:
    """Texts laid over config.yaml, the first below."""
    files = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return read_merged([DEFAULT, *files])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("windows: {low: {arrival: {process: closed, concurrency: 3}}}", "windows.low.arrival"),
        ("windows: {high: {arrival: {process: poisson, rate_qps: 3}}}", "windows.high.arrival"),
        ("sessions: {main: {warmup: {arrival: {process: constant, rate_qps: 3}}}}", "sessions.main.warmup.arrival"),
        ("workloads: {chat: {prompts: {source: file, path: p.txt}}}", "workloads.chat.prompts"),
        (
            "workloads: {chat: {prompts: {length: {distribution: fixed, tokens: 3}}, max_tokens: 5}}",
            "workloads.chat.prompts.length",
        ),
        ("models: {smollm2-135m: {source: hub, id: a/b}}", "models.smollm2-135m"),
        (
            "servers: {vllm: {mode: attach, endpoint: 'http://127.0.0.1:1'}}\n"
            "workloads:\n"
            "  chat: {prompts: {form: words}}\n"
            "  prefill_only: {prompts: {form: words}}\n"
            "  decode_only: {prompts: {form: words}}",
            "servers.vllm",
        ),
    ],
)
def test_a_mapping_of_another_kind_replaces_the_one_below(tmp_path: Path, text: str, key: str) -> None:
    node = laid(tmp_path, text)
    for part in key.split("."):
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    (tag,) = {"process", "source", "mode", "distribution"} & set(type(node).model_fields)
    assert f"{tag}: {getattr(node, tag)}" in text


def test_a_mapping_of_the_same_kind_or_without_one_is_merged(tmp_path: Path) -> None:
    config = laid(tmp_path, "windows: {prefill: {arrival: {process: closed, concurrency: 3}}, low: {duration_s: 30}}")
    arrival = config.windows["prefill"].arrival
    assert (arrival.concurrency, arrival.pool) == (3, 64)
    assert config.windows["low"].duration_s == 30
    assert config.windows["low"].workload == "chat"
    assert laid(tmp_path, "servers: {vllm: {interpreter: /x}}").servers["vllm"].arguments["max-num-seqs"] == 64


def test_keys_of_the_kind_below_are_unknown_to_another_kind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"windows.low.arrival.burstiness: this key is required"):
        laid(tmp_path, "windows: {low: {arrival: {process: gamma, rate_qps: 1}}}")
    with pytest.raises(InputError, match=r"windows.low.arrival.rate_qps: this key is required.*0.yaml:1"):
        laid(tmp_path, "windows: {low: {arrival: {process: constant}}}")


@pytest.mark.parametrize(
    ("text", "section", "name", "key", "value"),
    [
        ("workloads: {chat: {prompts: {source: file, path: p.txt}}}", "workloads", "chat", "ignore_eos", False),
        ("sessions: {main: {server: vllm, windows: [low]}}", "sessions", "main", "warmup", None),
        (
            "windows: {prefill: {workload: chat, arrival: {process: closed, concurrency: 1}, duration_s: 50}}",
            "windows",
            "prefill",
            "kind",
            "steady",
        ),
        ("servers: {vllm: {mode: launch, model: smollm2-135m}}", "servers", "vllm", "arguments", {}),
        (
            "models: {shape: {source: dummy, architecture: {x: 1}}}\n"
            "servers: {vllm: {mode: launch, model: shape, variables: {A: b}}}",
            "servers",
            "vllm",
            "variables_on_cpu",
            {},
        ),
    ],
)
def test_a_complete_definition_takes_over_nothing_of_one_of_the_same_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, section: str, name: str, key: str, value: object
) -> None:
    config = laid(tmp_path, text)
    assert getattr(getattr(config, section)[name], key) == value
    note = capsys.readouterr().err
    assert f"{section}.{name} is complete, so it replaces the one of" in note
    assert key in note


def test_a_complete_definition_that_says_all_keys_needs_no_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    laid(tmp_path, "windows: {low: {workload: chat, arrival: {process: poisson, rate_qps: 2}, duration_s: 60}}")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("texts", "changed", "left_out"),
    [
        (["impact: {carbon: {intensity_g_per_kwh: 44}}"], "carbon.intensity_g_per_kwh", "impact.carbon.source"),
        (["impact: {carbon: {zone: FR, intensity_g_per_kwh: 44}}"], "carbon.zone", "impact.carbon.source"),
        (["impact: {carbon: {zone: FR}}"], "carbon.zone", "impact.carbon.intensity_g_per_kwh"),
        (["impact: {carbon: {basis: direct}}"], "carbon.basis", "impact.carbon.intensity_g_per_kwh"),
        (["impact: {carbon: {source: mine}}"], "carbon.source", "impact.carbon.intensity_g_per_kwh"),
        ([f"impact: {{carbon: {{{FRANCE}}}}}", "impact: {carbon: {intensity_g_per_kwh: 45}}"], "carbon", "source"),
        (["impact: {pue: 1.2}"], "impact.pue", "impact.pue_source"),
        (["impact: {pue_source: mine 2025}"], "impact.pue_source", "impact.pue"),
        (
            ["impact: {water: {wue_site_l_per_kwh: 1, source: mine}}", "impact: {water: {wue_site_l_per_kwh: 2}}"],
            "wue_site_l_per_kwh",
            "impact.water.source",
        ),
        (
            ["impact: {water: {wue_site_l_per_kwh: 1, source: mine}}", "impact: {water: {ewif_grid_l_per_kwh: 2}}"],
            "ewif_grid_l_per_kwh",
            "impact.water.source",
        ),
        (
            [
                "metrics: {embodied: {total_kg: 1, lifetime_years: 4, source: mine}}",
                "metrics: {embodied: {total_kg: 2}}",
            ],
            "total_kg",
            "metrics.embodied.source",
        ),
    ],
)
def test_a_figure_is_not_changed_without_its_source(
    tmp_path: Path, texts: list[str], changed: str, left_out: str
) -> None:
    with pytest.raises(InputError) as caught:
        laid(tmp_path, *texts)
    text = str(caught.value)
    assert changed in text.partition("is changed")[0]
    assert left_out in text.partition("is changed")[2]
    assert f"{len(texts) - 1}.yaml:1" in text


def test_a_figure_with_its_source_and_one_that_stays_are_fine(tmp_path: Path) -> None:
    config = laid(
        tmp_path,
        f"impact: {{carbon: {{{FRANCE}}}, pue: 1.2, pue_source: mine 2025}}",
        "impact: {carbon: {intensity_g_per_kwh: 44}, water: {ewif_grid_l_per_kwh: 2, source: mine}}",
        "impact: {water: {ewif_grid_l_per_kwh: null}}\nmetrics: {embodied: null}",
    )
    assert config.impact.carbon.source == "RTE 2024"
    assert config.impact.pue_source == "mine 2025"
    assert config.impact.water.ewif_grid_l_per_kwh is None


def test_a_number_changed_in_place_does_not_keep_the_shipped_source(tmp_path: Path) -> None:
    number, source = SHIPPED_INTENSITY
    text = DEFAULT.read_text()
    assert f"intensity_g_per_kwh: {number} " in text
    assert source in text
    file = tmp_path / "config.yaml"
    file.write_text(text.replace(f"intensity_g_per_kwh: {number} ", "intensity_g_per_kwh: 44 "))
    with pytest.raises(InputError, match=r"impact.carbon.source: this source gives 473 .* where 44 .*config.yaml:\d+"):
        read_merged([file])
    file.write_text(text.replace("pue: 1.0 ", "pue: 1.4 "))
    with pytest.raises(InputError, match=r"impact.pue_source: the PUE is 1.4"):
        read_merged([file])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("experiment: raw", "experiment"),
        ("experiment: Logs", "experiment"),
        ("experiment: ../x", "experiment"),
        ("machines: [../../etc]", "machines"),
        ("machines: [a, a]", "machines"),
        ("sessions: {fits: {server: vllm, windows: [low]}}", "sessions.fits"),
        ("sessions: {Main: {server: vllm, windows: [low]}}", "sessions.Main"),
        ('sessions: {"main\\n": {server: vllm, windows: [low]}}', "a key is a text"),
        ("sessions: {../x: {server: vllm, windows: [low]}}", "sessions.../x"),
        (f"workloads: {{{'w' * 150}: {{prompts: {{source: questions}}}}}}", "workloads.wwww"),
        ("windows: {warmup: {workload: chat, arrival: {process: closed, concurrency: 1}, duration_s: 9}}", "warmup"),
        ("servers: {a.b: {mode: attach, endpoint: 'http://127.0.0.1:1'}}", "servers.a.b"),
    ],
)
def test_names_that_cannot_be_names_of_files_are_refused(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(InputError) as caught:
        laid(tmp_path, text)
    assert key in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_run_reads_config_yaml_first_and_says_if_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Path("mine.yaml")
    assert layers_of_run([mine]) == [mine]
    with pytest.raises(InputError, match=r"config.yaml: no such file"):
        layers_of_run([])
    Path("config.yaml").write_text(DEFAULT.read_text())
    assert layers_of_run([mine]) == [Path("config.yaml"), mine]
    assert layers_of_run([mine], alone=True) == [mine]


def test_a_change_without_the_file_that_it_changes_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = Path("mine.yaml")
    mine.write_text("idle: {cold_s: 30}")
    with pytest.raises(InputError, match=r"there is no config.yaml in this folder"):
        read_merged([mine])
    Path("config.yaml").write_text(DEFAULT.read_text())
    with pytest.raises(InputError, match=r"name both: config.yaml mine.yaml"):
        read_merged([mine])


def test_settings_of_the_command_line_are_the_top_layer(tmp_path: Path) -> None:
    assert read_merged([DEFAULT], {"idle": {"cold_s": 33}}).idle.cold_s == 33
    with pytest.raises(InputError, match=r"idle.cold_s: .*\(--config\)"):
        read_merged([DEFAULT], {"idle": {"cold_s": "long"}})


@pytest.mark.parametrize(
    ("key", "name", "part"),
    [
        ("arguments", "port", "the key `port` sets this"),
        ("arguments_on_cpu", "host", "the key `host` sets this"),
        ("arguments_on_gpu", "served_model_name", "the key `model` sets this"),
        ("arguments", "--dtype", "without the dashes"),
        ("arguments", "uds", "socket"),
        ("arguments", "config", "recorded"),
        ("arguments", "api_key", "would stand in every result"),
        ("variables", "HF_TOKEN", "would stand in every result"),
        ("variables_on_cpu", "MY_SECRET", "would stand in every result"),
        ("arguments", "max_model_len", "the same flag as max-model-len"),
    ],
)
def test_arguments_that_work_past_the_keys_are_refused(tmp_path: Path, key: str, name: str, part: str) -> None:
    with pytest.raises(InputError) as caught:
        laid(tmp_path, f"servers: {{vllm: {{{key}: {{'{name}': x}}}}}}")
    assert f"servers.vllm.{key}.{name}: " in str(caught.value)
    assert part in str(caught.value)
