"""What an engine is refused for at the start of its worker, before its labels are anybody's."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edldist.errors import ConfigError, EngineLostError, ModelError, UnfitCodecError
from edldist.teacher.engines.address import EngineAddress
from edldist.teacher.engines.engine import Engine
from edldist.teacher.engines.settings import EngineSettings
from edldist.teacher.worker import WorkerOptions, load_teacher
from tests.engines import CONTEXT, VOCABULARY, engine

tokenizers = pytest.importorskip("tokenizers")

pytestmark = pytest.mark.timeout(60)

K = 24
SETTINGS = {"vocabulary": VOCABULARY, "retry_s": 0.01, "wait_s": 5}


@pytest.fixture(params=["vllm", "sglang"])
def server(request) -> Iterator:
    with engine(request.param) as made:
        yield made


def look(server, kept: int = K, reference: str | None = None, **settings) -> Engine:
    made = Engine(reference or server.reference, SETTINGS | settings, kept)
    made.close()
    return made


def test_an_engine_that_is_well_is_known_by_what_it_serves(server):
    made = look(server)
    assert made.identity == f"{server.kind}:tiny" and made.tokenizer == ""
    assert made.digest == ("served: tiny-7b" if server.kind == "vllm" else "served: tiny-7b v3")
    assert (made.context, made.vocabulary) == (CONTEXT, VOCABULARY)


def test_a_cap_is_found_and_how_to_raise_it():
    with engine("vllm") as server:
        server.faults.cap = 20
        with pytest.raises(ModelError, match="max allowed: 20.*tell 24 entries: .*--max-logprobs 24 or more"):
            look(server)
        assert look(server, 20)


def test_a_cap_that_nobody_speaks_of_is_found(server):
    server.faults.silent_cap = 20
    with pytest.raises(ModelError, match="20 entries came for position 0, and 24 were asked for"):
        look(server)


@pytest.mark.parametrize("temperature", [0.6, 2.0])
def test_a_temperature_of_its_own_is_found(server, temperature):
    server.faults.own_temperature = temperature
    with pytest.raises(ModelError, match="nats apart after 1 tokens at temperature 1. It has a temperature"):
        look(server)


@pytest.mark.parametrize("kept", [1, 4, K])
def test_last_digits_that_differ_from_batch_to_batch_are_no_temperature(server, kept):
    model = server.model
    server.model = lambda ids: (model(ids) / 8).to(torch.bfloat16).float() * 8  # with many equal ones
    server.faults.noise = 0.06
    assert look(server, kept).identity


def test_prefixes_that_are_told_from_memory_are_found(server):
    server.faults.repeats = True
    with pytest.raises(ModelError, match="now this and now that: .*--no-enable-prefix-caching"):
        look(server)


def test_a_vocabulary_that_is_larger_than_was_said_is_found(server):
    with pytest.raises(ModelError, match=r"outside of a vocabulary of 100 \(setting vocabulary\)"):
        look(server, vocabulary=100)


def bytes_of(path: Path, shift: int = 0) -> None:
    """A tokenizer of bytes; with a shift, one that gives them other ids."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE({c: (n + shift) % 256 for n, c in enumerate(alphabet)}, [])
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.save(str(path))


def test_another_tokenizer_is_found(server, tmp_path):
    ours, theirs = tmp_path / "tokenizer.json", tmp_path / "theirs.json"
    bytes_of(ours)
    bytes_of(theirs, 1)
    encode = tokenizers.Tokenizer.from_file(str(ours)).encode
    server.encode = lambda text: encode(text).ids
    by_file = look(server, tokenizer=str(ours))
    assert len(by_file.tokenizer) == 32
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"vocab_size": VOCABULARY}}))
    by_folder = look(server, tokenizer=str(tmp_path), vocabulary=None)
    assert by_folder.vocabulary == VOCABULARY and len(by_folder.tokenizer) == 32
    other = tokenizers.Tokenizer.from_file(str(theirs)).encode
    server.encode = lambda text: other(text).ids
    with pytest.raises(
        ModelError, match=r"another tokenizer than .*tokens of 'Naïve.*difference is at token 0"
    ):
        look(server, tokenizer=str(ours))
    server.encode = lambda text: encode(text).ids[:-5]
    with pytest.raises(ModelError, match="another tokenizer than .*at token 71: none instead of"):
        look(server, tokenizer=str(ours))


def test_an_engine_that_cannot_tell_its_tokens_is_refused_where_they_are_to_be_compared(tmp_path):
    bytes_of(tmp_path / "tokenizer.json")
    with (
        engine("vllm") as server,
        pytest.raises(ModelError, match="does not tell which ids .*leave tokenizer out.*HTTP 404: Not Found"),
    ):
        look(server, tokenizer=str(tmp_path / "tokenizer.json"))


def test_an_engine_that_still_loads_is_waited_for(server, caplog):
    caplog.set_level(logging.INFO)
    server.die()
    back = threading.Timer(0.3, server.come_back)
    back.start()
    try:
        assert look(server, wait_s=30).identity
    finally:
        back.join()
    assert "waiting for" in caplog.text


def test_one_that_never_answers_is_waited_for_no_longer_than_that(server):
    server.die()
    with pytest.raises(EngineLostError, match="did not answer within wait_s, 0.1 s: ConnectionRefused"):
        look(server, wait_s=0.1)


def test_a_key_is_asked_for_and_given(server, tmp_path):
    server.faults.key = "sesame"
    with pytest.raises(ConfigError, match=r"asks for its key \(HTTP 401: Unauthorized\).*api_key_file"):
        look(server)
    file = tmp_path / "key"
    file.write_text("sesame\n")
    assert look(server, api_key_file=str(file)).identity


def test_the_model_is_named_where_there_are_several():
    with engine("vllm", names=("one", "two")) as server:
        with pytest.raises(ConfigError, match="serves one, two: name one of them behind #, as in .*#one"):
            look(server)
        with pytest.raises(ConfigError, match="serves one, two"):
            look(server, reference=f"{server.reference}#three")
        assert look(server, reference=f"{server.reference}#two").identity == "vllm:two"


def test_one_kind_of_engine_is_not_taken_for_the_other(server):
    other = {"vllm": "sglang", "sglang": "vllm"}[server.kind]
    with pytest.raises(ConfigError, match=f"it is {server.kind} that answers there"):
        look(server, reference=f"{other}:http://127.0.0.1:{server.port}")
    with pytest.raises(ModelError, match="/v1/models is not there .*no such engine"):
        look(server, reference=f"{server.reference}/elsewhere")


WRONG_SETTINGS = [
    ({"threads": 3}, "no setting 'threads'; those of kwargs .* concurrency, timeout_s"),
    ({"concurrency": 0}, "concurrency 0: use a whole number from 1 to 1024"),
    ({"concurrency": 2.5}, "concurrency 2.5: use a whole number"),
    ({"concurrency": True}, "concurrency True"),
    ({"timeout_s": 0}, "timeout_s 0: use a number from 0.001"),
    ({"timeout_s": float("nan")}, "timeout_s nan"),
    ({"timeout_s": "long"}, "timeout_s 'long'"),
    ({"retries": -1}, "retries -1: use a whole number from 0 to 100"),
    ({"retry_s": 31}, "retry_s 31: use a number from 0 to 30"),
    ({"wait_s": None}, "wait_s None"),
    ({"vocabulary": 1}, "vocabulary 1: use a whole number from 2"),
    ({"api_key_file": 3}, "api_key_file 3: use a path"),
    ({"tokenizer": ""}, "tokenizer '': use a path"),
]


@pytest.mark.parametrize(("kwargs", "words"), WRONG_SETTINGS)
def test_a_setting_that_is_none_is_refused_with_what_it_may_be(kwargs, words):
    with pytest.raises(ConfigError, match=f"model vllm:http://h:1: .*{words}"):
        EngineSettings.read("vllm:http://h:1", kwargs)


@pytest.mark.parametrize("content", [None, b"", b"two words", b"\xff", "schl\u00fcssel".encode()])
def test_a_file_without_a_key_is_refused(tmp_path, content):
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="api_key_file .*key"):
        EngineSettings.read("vllm:http://h:1", {"api_key_file": str(file)}).key("vllm:http://h:1")


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_tokenizer_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="use a tokenizer.json, or a folder with one"):
        Engine("vllm:http://127.0.0.1:1", {"tokenizer": str(tmp_path / name)}, K)
    with pytest.raises(ConfigError, match="does not say how many entries.*vocabulary=N"):
        Engine("vllm:http://127.0.0.1:1", {}, K)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"vocab_size": "many"}')
    with pytest.raises(ConfigError, match="does not say how many entries"):
        Engine("vllm:http://127.0.0.1:1", {"tokenizer": str(tmp_path)}, K)


def test_a_file_that_is_no_tokenizer_is_refused(server, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer.json cannot be read: "):
        look(server, tokenizer=str(tmp_path / "tokenizer.json"))


def test_more_entries_than_the_vocabulary_has_are_refused(server):
    with pytest.raises(ConfigError, match="topk:301 .*vocabulary of 300"):
        look(server, VOCABULARY + 1)


def test_addresses_are_read_and_keys_in_them_refused():
    address = EngineAddress.parse("vllm:https://gate.example/team/v1/#Qwen/Qwen3-8B")
    assert (address.secure, address.host, address.port) == (True, "gate.example", 443)
    assert (address.path, address.name) == ("/team", "Qwen/Qwen3-8B")
    assert str(address) == "vllm at https://gate.example:443/team"
    assert str(EngineAddress.parse("sglang:http://[::1]:30000")) == "sglang at http://[::1]:30000"
    for wrong in ("vllm:http://h:99999", "vllm:http://:80", "vllm:ftp://h", "vllm:http://h/?k=v"):
        with pytest.raises(ConfigError, match="model vllm:"):
            EngineAddress.parse(wrong)
    with pytest.raises(ConfigError, match="api_key_file") as refused:
        EngineAddress.parse("vllm:http://user:secret@h:8000")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("codec", ["dense", "int8", "rs:8", "head+rs:4:4", "gather", "hidden", "topk:8:2"])
def test_codecs_that_need_all_logits_are_refused_with_the_reason(codec):
    words = "needs the whole distribution" if codec != "topk:8:2" else "for which all logits are needed"
    with pytest.raises(UnfitCodecError, match=words):
        load_teacher(options(codec=codec))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("device", "cuda:0"),
        ("weights", "w.safetensors"),
        ("outputs", "hidden"),
        ("compile", True),
        ("autocast", "bf16"),
        ("channels_last", True),
    ],
)
def test_options_of_a_model_that_is_loaded_are_refused(option, value):
    with pytest.raises(ConfigError, match=f"{option} {value}: the model of vllm:.* is the engine's"):
        load_teacher(options(**{option: value}))


def options(**given) -> WorkerOptions:
    given = {"codec": "topk:8"} | given
    return WorkerOptions(coordinator="tcp://127.0.0.1:1", model="vllm:http://127.0.0.1:1", **given)
