"""A data set whose samples are drawn anew each time is refused before anything of it is labelled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import edldist
from edldist.config import LabelConfig
from edldist.errors import StoreError
from edldist.labeller.data_set import NumberedSamples, Stream, open_data
from edldist.labeller.seeding import check_seeding


class Pictures(Dataset[dict[str, Tensor]]):
    """Twenty samples with noise: none, drawn anew each time from sample ``first`` on, or seeded."""

    def __init__(self, noise: str = "none", first: int = 0, broken: bool = False) -> None:
        self.noise, self.first, self.broken = noise, first, broken

    def __len__(self) -> int:
        return 20

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if self.broken:
            raise OSError("no such picture")
        x = torch.full((3,), float(number))
        if self.noise == "seeded":
            seed = edldist.augmentation_seed(0, number)
            x += torch.randn(3, generator=torch.Generator().manual_seed(seed))
        elif self.noise == "drawn" and number >= self.first:
            x += torch.randn(3)
        return {"x": x, "beside": torch.rand(1), "id": torch.tensor(number)}


def loader_of(**options: object) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(Pictures(**options), batch_size=4, num_workers=1, shuffle=True)  # type: ignore[arg-type]


def opened(kind: str, **given: object) -> tuple[NumberedSamples | Stream, LabelConfig]:
    ids = given.pop("ids", None)
    settings = LabelConfig.model_validate(
        {"data": f"{__name__}:{kind}", "kwargs": given, "inputs": "x", "batch_size": 4, "ids": ids}
    )
    return open_data(settings, 0, 1), settings


@pytest.mark.parametrize("ids", [None, "index", "id"])
@pytest.mark.parametrize(("first", "named"), [(0, 0), (7, 10)])
def test_what_is_drawn_anew_is_refused_with_a_sample_and_what_to_do(
    ids: str | None, first: int, named: int
) -> None:
    with pytest.raises(StoreError, match=rf"sample {named} of the data set \(Pictures\).*augmentation_seed"):
        check_seeding(*opened("Pictures", noise="drawn", first=first, ids=ids))


def test_a_worker_process_that_reads_draws_too() -> None:
    with pytest.raises(StoreError, match="sample 0 of the data set"):
        check_seeding(*opened("loader_of", noise="drawn"))


@pytest.mark.parametrize("noise", ["none", "seeded"])
@pytest.mark.parametrize("ids", [None, "index"])
def test_what_looks_the_same_is_labelled_whatever_is_drawn_beside_it(noise: str, ids: str | None) -> None:
    check_seeding(*opened("Pictures", noise=noise, ids=ids))


def test_what_is_wrong_with_a_sample_is_left_to_the_walk_to_say() -> None:
    check_seeding(*opened("Pictures", broken=True))


def batches() -> object:
    return ({"x": torch.randn(2, 3)} for _ in range(3))


def test_of_a_stream_nothing_is_read_that_would_be_missing_later() -> None:
    data, settings = opened("batches")
    check_seeding(data, settings)
    assert len(list(data if isinstance(data, Stream) else ())) == 3
