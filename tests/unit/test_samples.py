"""Samples: sets that copy nothing, windows that lead nowhere, images and texts."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.api import Experience, ExperienceView, ImageSet, Manifest, Samples
from benchmark.digests import digest_of_array
from benchmark.errors import PluginError
from benchmark.run import streams
from benchmark.samples import Kind, Pixels, Text, digest_of
from benchmark.scenario import fingerprint
from benchmark.testing.toys import toy_scenario

TEXTS: list[Text] = [{"text": f"sentence {number}"} for number in range(6)]


class Files:
    """Images that are made when they are asked for, and counted."""

    kind: Kind = "image"
    digest = "d" * 64

    def __init__(self, count: int = 20, side: int = 4) -> None:
        self.count = count
        self.side = side
        self.paths = [f"{'cat' if row % 2 else 'dog'}/{row}.png" for row in range(count)]
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        if len(rows) and int(rows.max()) >= self.count:
            raise IndexError(f"row {int(rows.max())} of {self.count}")
        self.read += rows.tolist()
        return rows.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, self.side, self.side)


def some(source: Files, *rows: int, label: int = 0) -> Samples:
    return Samples(source, torch.tensor(rows), torch.full((len(rows),), label))


def numbers(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def test_no_set_reads_its_source_before_it_is_asked() -> None:
    one, two = Files(), Files()
    first, second = some(one, 3, 5, 7), some(two, 2, 4)
    joined = Samples.concat([first.alone(), second.without_labels().subset(torch.tensor([1, 0])), first])
    target = dataclasses.replace(toy_scenario(family="uda").experiences[0], train=first, target=second.without_labels())
    scenario = dataclasses.replace(toy_scenario(family="uda"), experiences=(target,))
    streams.anonymous(streams.sequential(scenario), 0)
    ExperienceView(scenario, 0, Manifest("m", frozenset({"boundaries"})))
    assert one.read == two.read == []
    assert numbers(joined.images(torch.tensor([7, 3, 0, 3]))) == [7, 4, 3, 4]
    assert (one.read, two.read) == ([3, 7], [4, 4])  # what was asked for and nothing else
    assert joined.labels.tolist() == [0, 0, 0, -1, -1, 0, 0, 0]


def test_sets_of_one_source_are_joined_on_it() -> None:
    source = Files()
    joined = Samples.concat([some(source, 3, 5), some(source, 9, label=1)])
    assert joined.source is source
    assert (joined.rows.tolist(), joined.labels.tolist()) == ([3, 5, 9], [0, 0, 1])


def test_a_joined_set_of_nothing_has_a_shape() -> None:
    joined = Samples.concat([some(Files(), 1), some(Files(), 2)])
    assert joined.images(torch.tensor([], dtype=torch.int64)).shape == (0, 3, 4, 4)
    assert joined.images(slice(None)).is_contiguous()
    assert joined.image_shape == (3, 4, 4)


def test_images_of_different_sizes_are_not_stretched() -> None:
    joined = Samples.concat([some(Files(), 1, 2), some(Files(side=1), 1, 2)])
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        joined.images(torch.tensor([0, 3]))


@pytest.mark.parametrize(
    "hide", [Samples.alone, Samples.without_labels, lambda data: Samples.concat([data, data.alone()])]
)
def test_a_window_leads_to_its_own_rows_alone(hide: Callable[[Samples], Samples]) -> None:
    files = Files()
    found = hide(some(files, 3, 5))
    source = found.source
    assert found.rows.tolist() == list(range(len(source)))
    with pytest.raises(IndexError):
        source[torch.tensor([len(source)])]
    assert reachable(found).isdisjoint({id(files), id(files.paths)})
    assert digest_of(source) == files.digest
    again = found.alone()
    assert numbers(again.images(torch.tensor([1, 0]))) == [5, 3]


def reachable(root: object) -> set[int]:
    """Ids of all objects that attributes, slots, items and closures of an object lead to, code and modules aside."""
    queue, visited = [root], {id(root)}
    while queue:
        for thing in gc.get_referents(queue.pop()):
            if id(thing) not in visited and not isinstance(thing, type) and type(thing).__name__ != "module":
                visited.add(id(thing))
                queue.append(thing)
    return visited


def test_a_window_stays_one_when_it_is_copied() -> None:
    data = some(Files(), 3, 5).alone()
    assert numbers(copy.deepcopy(data).images(slice(None))) == [3, 5]
    assert copy.copy(data.source) is data.source
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(data)


def test_a_view_shows_the_training_images_of_its_experience_alone() -> None:
    scenario = toy_scenario(experiences=2)
    both = Samples.concat([part.train for part in scenario.experiences])
    shared = both.images(slice(None))
    parts = [
        Experience(
            train=Samples(shared, torch.arange(first, first + 16), part.train.labels),
            test=part.test,
            classes=part.classes,
        )
        for first, part in zip((0, 16), scenario.experiences, strict=True)
    ]
    view = ExperienceView(
        dataclasses.replace(scenario, experiences=tuple(parts)), 0, Manifest("m", frozenset({"boundaries"}))
    )
    assert len(view.train.source) == 16
    assert torch.equal(view.train.images(slice(None)), shared[:16])
    assert id(shared) not in reachable(view)


def test_texts_are_samples_like_images() -> None:
    data = Samples(TEXTS, torch.tensor([4, 2, 0]), torch.tensor([1, 0, 1]))
    assert data.kind == "text"
    assert data.texts(torch.tensor([2, 0])) == (TEXTS[0], TEXTS[4])
    assert data.read(slice(0, 1)) == (TEXTS[4],)
    hidden = Samples.concat([data.without_labels(), Samples(tuple(TEXTS), torch.tensor([5]), torch.tensor([0]))])
    assert hidden.kind == "text"
    assert hidden.texts(torch.tensor([3, 0, 1])) == (TEXTS[5], TEXTS[4], TEXTS[2])
    assert hidden.texts(slice(0, 0)) == ()


def test_the_wrong_kind_is_refused() -> None:
    texts, images = Samples(TEXTS, torch.tensor([0]), torch.tensor([0])), some(Files(), 0)
    with pytest.raises(PluginError, match="`images` was asked of a set of texts") as error:
        texts.images(slice(None))
    assert error.value.hint == "read it with `texts`, or with `read` whatever it holds"
    with pytest.raises(PluginError, match="`texts` was asked of a set of images"):
        images.alone().texts(slice(None))
    with pytest.raises(ValueError, match="sets of images and texts cannot be joined"):
        Samples.concat([images, texts])


def test_a_digest_is_that_of_the_content() -> None:
    pixels = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    assert digest_of(pixels) == digest_of(pixels.clone())
    assert digest_of(pixels) != digest_of(pixels.view(2, 3, 4, 1))
    assert digest_of(pixels) != digest_of(pixels + 1)
    assert digest_of(TEXTS) == digest_of(tuple(TEXTS))
    assert digest_of(TEXTS) != digest_of(TEXTS[:-1])
    assert digest_of(Files()) == "d" * 64
    data = Samples(pixels, torch.tensor([0]), torch.tensor([0]))
    other = Samples(pixels + 1, torch.tensor([0]), torch.tensor([0]))
    assert digest_of(data.alone().source) == digest_of(pixels)
    joined = digest_of(Samples.concat([data, other]).source)
    assert joined not in {digest_of(pixels), digest_of(pixels + 1)}


def test_a_digest_is_the_same_however_the_pixels_are_held() -> None:
    array = np.random.RandomState(0).randint(0, 256, (600, 3, 2, 2)).astype(np.uint8)
    pixels = torch.from_numpy(array)

    class Bare:  # a source of a stranger, without a digest
        kind = "image"

        def __len__(self) -> int:
            return 600

        def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
            return pixels[rows]

    digests = {digest_of(pixels), digest_of(Pixels(pixels)), digest_of_array(array), digest_of(cast("Any", Bare()))}
    assert len(digests) == 1
    assert Pixels(pixels, "known").digest == "known"
    assert torch.equal(Pixels(pixels)[torch.tensor([5, 0])], pixels[[5, 0]])
    array[599, 2, 1, 1] ^= 1
    assert digest_of(pixels) not in digests


def test_the_old_names_stay() -> None:
    assert ImageSet is Samples


def test_importing_samples_does_not_import_torch() -> None:
    code = "import sys, benchmark.samples, benchmark.scenario; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_handed_out_may_be_changed_in_place() -> None:
    """A method that shifts its labels or cleans its texts changes neither the data nor what the next run reads."""
    held = Samples(TEXTS, torch.arange(6), torch.arange(6), None, torch.arange(6))
    shown = held.alone()
    for given in (shown.labels, shown.ids, shown.domains):
        assert given is not None
        given.sub_(5)
    for text in (*shown.read(slice(None)), *held.read(torch.tensor([0])), *shown.texts(slice(0, 2))):
        assert isinstance(text, dict)
        text.clear()
    assert held.labels.tolist() == held.ids.tolist() == held.rows.tolist() == list(range(6))
    assert held.domains is not None
    assert held.domains.tolist() == list(range(6))
    assert held.texts(slice(None)) == tuple(TEXTS)


def test_a_view_shows_copies_of_labels() -> None:
    scenario = toy_scenario(family="uda")
    view = ExperienceView(scenario, 0, Manifest("m", frozenset({"boundaries", "unlabelled"})))
    first = scenario.experiences[0]
    assert first.target is not None
    assert view.unlabelled is not None
    before = [part.clone() for part in (first.train.labels, first.train.ids, first.target.labels, first.target.ids)]
    for part in (view.train.labels, view.train.ids, view.unlabelled.labels, view.unlabelled.ids):
        part.add_(1)
    after = (first.train.labels, first.train.ids, first.target.labels, first.target.ids)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def told() -> Samples:
    references = [[f"about {place}", f"of {place}"] for place in range(6)]
    return Samples(TEXTS, torch.arange(6), torch.zeros(6), references=references)


def test_references_follow_their_samples_and_hide_where_labels_hide() -> None:
    data = told()
    some = data.subset(torch.tensor([4, 1]))
    assert some.references == (("about 4", "of 4"), ("about 1", "of 1"))
    assert some.alone().references == some.without_domains().references == some.references
    assert some.without_labels().references is None
    assert some.referring(torch.tensor([1])) == (("about 1", "of 1"),)
    joined = Samples.concat([some, data.alone()])
    assert joined.references == (*some.references, *data.references)
    assert Samples(TEXTS, torch.arange(6), torch.zeros(6)).referring(torch.tensor([1])) is None
    with pytest.raises(ValueError, match="sets with references and sets without cannot be joined"):
        Samples.concat([data, Samples(TEXTS, torch.arange(6), torch.zeros(6))])


@pytest.mark.parametrize("wrong", [[["one"]], ["one"] * 6, [[]] * 6, [[1]] * 6, [["\ud800"]] * 6])
def test_references_that_are_none(wrong: Any) -> None:
    with pytest.raises(ValueError, match="references"):
        Samples(TEXTS, torch.arange(6), torch.zeros(6), references=wrong)


def test_references_are_part_of_the_fingerprint() -> None:
    def of(references: Any) -> str:
        part = Samples(TEXTS, torch.arange(6), torch.zeros(6), references=references)
        return fingerprint([Experience(train=part, test=part.subset(torch.arange(2)), classes=(0,))])

    plain, one = of(None), [[f"about {place}"] for place in range(6)]
    assert len({plain, of(one), of([*one[1:], one[0]])}) == 3
    assert of(one) == of([tuple(texts) for texts in one])
