"""The URL of an endpoint as users write it, wherever one is taken."""

import pytest
from pydantic import ValidationError

from inference_energy.api.load_test.settings import LoadTest
from inference_energy.config.servers import AttachServer
from inference_energy.contracts.endpoint_url import LONGEST_CHARACTERS, checked_endpoint
from inference_energy.errors import InputError

GOOD = {
    "http://127.0.0.1:8000": "http://127.0.0.1:8000",
    "http://127.0.0.1:8000/": "http://127.0.0.1:8000",
    "https://host/v1": "https://host",
    "https://host/api/v1/": "https://host/api",
    "http://[::1]:8000/v1": "http://[::1]:8000",
    "http://a_b.example.:65535": "http://a_b.example.:65535",
}
BAD = {
    "": "it is empty",
    "http://host ": "a blank at its end",
    " http://host": "a blank",
    "http://ho st": "a blank",
    "http://host\n": "a blank at its end",
    "http://host\0": "the character",
    "http://h\u00f6st": "the character",
    "http://host\\x": "the character",
    "host:8000": "no URL",
    "//host": "no URL",
    "http://": "no URL",
    "http:host": "no URL",
    "http://a..b": "no URL",
    "http://[::1": "no URL",
    "http://[host]": "no URL",
    "ftp://host": "neither http:// nor https://",
    "http://host:": "no port",
    "http://host:0": "no port",
    "http://host:65536": "no port",
    "http://host:-1": "no port",
    "http://host:80a": "no port",
    "http://::1": "brackets",
    "http://fe80::1:8000": "brackets",
    "http://user:secret@host": "no login",
    "user:secret@host": "no login",
    "ftp://user:secret@host": "no login",
    "http://host?key=secret": "must end with its path",
    "http://host/#secret": "must end with its path",
    "http://" + LONGEST_CHARACTERS * "a": "2,007 characters",
    "http://" + 300 * "a": "no URL",
}


@pytest.mark.parametrize("endpoint", GOOD)
def test_a_base_url_is_taken_with_or_without_the_path_of_the_api(endpoint: str) -> None:
    assert checked_endpoint(endpoint) == GOOD[endpoint]


@pytest.mark.parametrize("endpoint", BAD)
def test_anything_else_is_refused_with_its_fault_and_without_a_secret(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        checked_endpoint(endpoint)
    message = str(error.value)
    assert BAD[endpoint] in message
    assert "secret" not in message
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("endpoint", BAD)
def test_configuration_and_load_test_refuse_it_before_anything_runs(endpoint: str) -> None:
    with pytest.raises(ValidationError, match=r"endpoint"):
        AttachServer(mode="attach", endpoint=endpoint)
    arrival = {"process": "closed", "concurrency": 1}
    test = {"model": "m", "output": "r.csv", "arrival": arrival, "workload": {"prompts": {"source": "synthetic"}}}
    with pytest.raises(InputError) as error:
        LoadTest.model_validate({**test, "endpoints": [endpoint]})
    assert "endpoints" in str(error.value)
    assert "secret" not in str(error.value)
    assert LoadTest.model_validate({**test, "endpoints": ["http://host/v1"]}).endpoints == ["http://host"]
