"""How a student uses a store of labels, and which of the labels there are its own where no worker says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edldist.environment import LabelMaker
from edldist.errors import StoreError
from edldist.labels.grammar import CodecSpec
from edldist.store.label_store import LabelStore
from edldist.store.recipe import Recipe
from edldist.student.inputs.ids import SampleIds

__all__ = ["StoreUse"]


@dataclass(frozen=True)
class StoreUse:
    """How a student uses a store.

    Attributes:
        store: where labels are kept.
        ids: what samples are called; None: they are known by digests of their inputs.
        preprocessing, data: see ``Recipe``.
        only: no worker is expected: all labels are in the store.
        made_by: what is known of who made them, by teacher group.
        most_batches: labels are looked for of so many batches, and none are put; None: always, and all.
    """

    store: LabelStore
    ids: SampleIds | None = None
    preprocessing: str = ""
    data: str = ""
    only: bool = False
    made_by: Mapping[str, LabelMaker] = field(default_factory=dict)
    most_batches: int | None = None

    def settings_of(self, teacher: str) -> str:
        """What the job says of how a group labels (``Recipe.settings``); empty where it says nothing."""
        return self.made_by.get(teacher, LabelMaker()).settings

    def recipe_of(self, teacher: str, codec: CodecSpec | None, data: str) -> Recipe:
        """The one recipe in the store by which a group's labels may have been made.

        Args:
            codec: in which the loop takes labels, where it says so.
            data: which data set the keys of samples are of.

        Raises:
            StoreError: there is none, or more than one.
        """
        said = self.made_by.get(teacher, LabelMaker())
        wanted = {
            "model": said.model,
            "codec": said.codec if codec is None else str(codec),
            "version": said.version,
            "settings": said.settings,
            "preprocessing": self.preprocessing,
            "data": data,
        }
        recipes = self.store.recipes()
        fitting = [recipe for recipe in recipes if not _unlike(recipe, wanted)]
        if len(fitting) > 1:  # a run that ended before its first label has left a recipe of none
            held = {each.recipe.digest for each in self.store.contents() if each.samples}
            fitting = [recipe for recipe in fitting if recipe.digest in held] or fitting
        if len(fitting) != 1:
            raise StoreError(_no_one_recipe(teacher, self.store, wanted, recipes, fitting))
        return fitting[0]


def _unlike(recipe: Recipe, wanted: Mapping[str, str]) -> list[str]:
    """How a recipe differs from what is known of one."""
    made_by = recipe.fingerprint
    has = {
        "model": made_by.model,
        "codec": str(made_by.codec),
        "version": made_by.version,
        "settings": recipe.settings,
        "preprocessing": recipe.preprocessing,
        "data": recipe.data,
    }
    # What was said to be nothing may be anything, but for what tells one sample from another.
    return [
        f"{name} {has[name]!r} instead of {value!r}"
        for name, value in wanted.items()
        if (value or name in ("settings", "preprocessing", "data")) and has[name] != value
    ]


def _no_one_recipe(
    teacher: str,
    store: LabelStore,
    wanted: Mapping[str, str],
    recipes: Sequence[Recipe],
    fitting: Sequence[Recipe],
) -> str:
    said = ", ".join(f"{name} {value!r}" for name, value in wanted.items() if value) or "anything"
    what = f"teacher {teacher!r} ({said}) takes all labels from the store {store.url}, which has "
    if fitting:
        weights = ", ".join(each.fingerprint.weights[:12] or each.fingerprint.version for each in fitting)
        return what + (
            f"{len(fitting)} recipes like that (of weights {weights}), and nobody can tell which is meant: "
            "name its version, or give a store that holds one of them"
        )
    if not recipes:
        return what + "none at all: label the data first (edldist label)"
    others = "; ".join(", ".join(_unlike(each, wanted)) for each in recipes[:3])
    return what + f"none like that, but {others}. Label the data first (edldist label), or name what is there"
