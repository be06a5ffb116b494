"""Weights as they lie around reach the model, or are refused with what is wrong before it is built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import tests.models
from edldist.errors import ConfigError, ModelError
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.model.weights import Weights

CPU = torch.device("cpu")


class Tied(nn.Module):
    """As GPT-2: the head's weights are the embedding's."""

    base_model_prefix = "trunk"
    _keys_to_ignore_on_load_unexpected = {r"mask\.bias"}

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.ModuleDict({"embed": nn.Embedding(5, 3), "norm": nn.LayerNorm(3)})
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.trunk["embed"].weight

    def forward(self, ids):
        return self.head(self.trunk["norm"](self.trunk["embed"](ids)))


def trained(model: nn.Module) -> dict[str, torch.Tensor]:
    """Other weights for a model, by its own names."""
    return {name: torch.rand_like(value) for name, value in model.state_dict().items()}


def loaded(path: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    Weights(str(path)).load_into(model, "m:f")
    return model.state_dict()


def same(got, expected) -> None:
    assert {name: value.tolist() for name, value in got.items() if name in expected} == {
        name: value.tolist() for name, value in expected.items()
    }


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrapped", [(), ("state_dict",), ("model",), ("module",), ("state_dict", "model")])
def test_a_checkpoint_is_unwrapped_and_its_prefix_left_out(tmp_path, prefix, wrapped):
    weights = trained(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    state: dict = {prefix + name: value for name, value in weights.items()}
    for key in wrapped:
        state = {key: state, "epoch": 7, "best": torch.tensor(0.9)}
    torch.save(state, tmp_path / "w.pt")
    same(loaded(tmp_path / "w.pt", nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))), weights)


@pytest.mark.parametrize("missing", ["head.weight", "trunk.embed.weight"])
def test_a_tied_weight_need_not_be_there_twice(tmp_path, missing):
    weights = trained(Tied())
    weights["head.weight"] = weights["trunk.embed.weight"].clone()
    save_file({name: value for name, value in weights.items() if name != missing}, tmp_path / "w.safetensors")
    same(loaded(tmp_path / "w.safetensors", Tied()), weights)


def test_a_weight_that_is_tied_to_nothing_must_be_there(tmp_path):
    weights = trained(Tied())
    del weights["trunk.norm.bias"]
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"do not fit model m:f: they lack trunk\.norm\.bias$"):
        loaded(tmp_path / "w.pt", Tied())


def test_the_file_of_a_trunk_fits_the_model_with_a_head(tmp_path):
    """As GPT-2's own file: names without the trunk's, no head, and masks that newer models do not keep."""
    weights = trained(Tied())
    own = {name.removeprefix("trunk."): value for name, value in weights.items() if name != "head.weight"}
    torch.save(own | {"mask.bias": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    del weights["head.weight"]
    same(loaded(tmp_path, Tied()), weights)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_found_by_their_index_and_an_index_by_its_folder(tmp_path, kind):
    weights = trained(Tied())
    del weights["head.weight"]
    shards = [f"part-{number}.{kind}" for number in range(len(weights))]
    for (name, value), file in zip(weights.items(), shards, strict=True):
        (save_file if kind == "safetensors" else torch.save)({name: value}, tmp_path / file)
    index = tmp_path / f"{'model' if kind == 'safetensors' else 'pytorch_model'}.{kind}.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(weights, shards, strict=True))}))
    same(loaded(tmp_path, Tied()), weights)
    same(loaded(index, Tied()), weights)
    (tmp_path / shards[1]).unlink()
    with pytest.raises(ConfigError, match=f"1 of its 3 shards are not there: {shards[1]}"):
        Weights(str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "last.ckpt"])
def test_a_folder_means_its_file_of_weights(tmp_path, name):
    weights = trained(nn.Linear(2, 3))
    (save_file if name.endswith("safetensors") else torch.save)(weights, tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    same(loaded(tmp_path, nn.Linear(2, 3)), weights)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "this one has none. Name the file"),
        ({"a.pt": "", "b.safetensors": ""}, r"has 2 files of weights \(a.pt, b.safetensors\)"),
        ({"model.safetensors.index.json": "{}"}, "no index of shards: KeyError"),
        ({"model.safetensors.index.json": "garbage"}, "no index of shards: JSONDecodeError"),
        ({"model.safetensors.index.json": '{"weight_map": {}}'}, "names no files"),
        (
            {"model.safetensors.index.json": '{"weight_map": {"a": "../x.pt"}}'},
            r"\.\./x\.pt, not files beside",
        ),
        ({"model.safetensors.index.json": '{"weight_map": {"a": "/x.pt"}}'}, "/x.pt, not files beside it"),
        ({"model.safetensors.index.json": '{"weight_map": {"a": 3}}'}, "3, not files beside it"),
    ],
)
def test_a_folder_without_weights_says_what_it_looked_for(tmp_path, files, says):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=says):
        Weights(str(tmp_path))


def test_a_path_is_checked_before_the_model_is_built(monkeypatch, tmp_path):
    built = []
    monkeypatch.setattr(tests.models, "costly", lambda: built.append(1), raising=False)
    with pytest.raises(ConfigError, match="no such file or folder"):
        Teacher("tests.models:costly", CPU, str(tmp_path / "none.pt"))
    assert built == []


def test_what_is_no_state_dict_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="they are a list, not tensors by name"):
        loaded(tmp_path / "list.pt", nn.Linear(2, 3))
    torch.save({"weight": torch.zeros(3, 2), "bias": torch.zeros(4)}, tmp_path / "wide.pt")
    with pytest.raises(ModelError, match=r"do not fit model m:f: [\s\S]*size mismatch for bias"):
        loaded(tmp_path / "wide.pt", nn.Linear(2, 3))
