"""Datasets of sources with a length and random access, of images and of other arrays."""

import collections
import dataclasses
from pathlib import Path

import grain
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import transfer_jax as tj
from transfer_jax.config import TrainConfig
from transfer_jax.data import (
    Augmentation,
    BadImageError,
    ImageDataset,
    NotImagesError,
    augmented_image_fetch,
    from_arrays,
    from_examples,
    image_fetch,
    ordered_batches,
    scan_images,
    shuffled_batches,
    stratified_split,
    view_fetch,
)
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.runs.run_start import PartStart

COUNT = 12
LABELS = np.arange(COUNT) % 3
NAMES = ("cat", "dog", "owl")
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 10, 14, 3)).astype(np.uint8)
PAIRS = [(pixels, int(label)) for pixels, label in zip(PIXELS, LABELS, strict=True)]
TOKENS = [
    {"tokens": list(range(i, i + 5)), "length": 5.0 - i % 3, "label": NAMES[i % 3]} for i in range(COUNT)
]
Pair = collections.namedtuple("Pair", ["picture", "kind"])


class Source:
    """A source that counts what is read of it.

    Args:
        items: The examples.
        **attributes: Attributes of the source.
    """

    def __init__(self, items, **attributes) -> None:
        self.items, self.read = items, collections.Counter()
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        self.read[index] += 1
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def encoded(encode) -> list[tuple[bytes, str]]:
    return [(encode(pixels), NAMES[label]) for pixels, label in PAIRS]


# Forms of sources.


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (PAIRS, {}),
        ([{"jpg": pixels, "cls": label, "__key__": "name"} for pixels, label in PAIRS], {}),
        ([{"image": pixels, "mask": pixels, "label": label, "id": 7} for pixels, label in PAIRS], {}),
        (
            [{"a": pixels, "b": pixels[::-1], "x": label, "y": 0} for pixels, label in PAIRS],
            {"image": "a", "label": "x"},
        ),
        (
            [{"in": {"x": pixels}, "out": {"y": label}} for pixels, label in PAIRS],
            {"image": "in/x", "label": "out/y"},
        ),
        ([Pair(*pair) for pair in PAIRS], {}),
        ([Pair(*pair) for pair in PAIRS], {"image": 0, "label": "kind"}),
        (PAIRS, {"label": lambda item: item[1], "image": lambda item: item[0]}),
        ({"image": PIXELS, "label": LABELS}, {}),
        ((PIXELS, LABELS), {}),
        (PIXELS, {"label": LABELS}),
        (PIXELS, {"label": [*map(int, LABELS)]}),
        (grain.MapDataset.source(PAIRS), {}),
        (grain.MapDataset.source(PAIRS).map(lambda pair: {"image": pair[0], "label": pair[1]}), {}),
    ],
    ids=[
        *("pairs", "keys", "mask", "named", "nested", "namedtuple", "position", "functions", "columns"),
        *("arrays", "labels", "label list", "grain", "grain map"),
    ],
)
def test_all_sources_give_the_same_dataset(source, options):
    dataset = from_examples(source, **options)
    assert dataset.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.names[3] == "example 3"
    for index in (0, 7):
        np.testing.assert_array_equal(dataset.image(index), PIXELS[index])
    assert dataset.fingerprint == from_examples(PAIRS).fingerprint


def test_images_are_read_one_at_a_time_when_they_are_needed():
    source = Source(PAIRS)
    dataset = from_examples(source, fingerprint="v1", label=LABELS)
    before = source.read.copy()
    assert sum(before.values()) < 2.5 * 8
    dataset.image(5)
    assert source.read - before == {5: 1}


@pytest.mark.parametrize("kind", ["given", "own"])
def test_a_fingerprint_replaces_reading(kind):
    def make(version: str) -> tuple[Source, ImageDataset]:
        own = {"_fingerprint": version} if kind == "own" else {}
        source = Source(PAIRS * 4, targets=LABELS.tolist() * 4, **own)
        return source, from_examples(source, fingerprint=version if kind == "given" else None)

    source, dataset = make("v1")
    assert len(source.read) == 8
    assert dataset.fingerprint == make("v1")[1].fingerprint != make("v2")[1].fingerprint


def test_the_fingerprint_follows_content_labels_and_classes():
    turned = [(pixels[::-1], label) for pixels, label in PAIRS]
    others = [(pixels, 2 - label) for pixels, label in PAIRS]
    variants = [
        from_examples(PAIRS),
        from_examples(PAIRS[:-1] + turned[-1:]),
        from_examples(others),
        from_examples(PAIRS, class_names=NAMES),
        from_examples(PAIRS[:6], validation=PAIRS[6:]),
    ]
    assert len({dataset.fingerprint for dataset in variants}) == len(variants)


def test_progress_counts_examples():
    steps = []
    from_examples(PAIRS, progress=steps.append)
    assert sum(steps) == COUNT


# Labels and classes.


@pytest.mark.parametrize("name", ["targets", "labels"])
def test_labels_and_classes_of_torch_datasets(name):
    source = Source(PAIRS, classes=[*NAMES], **{name: LABELS.tolist()})
    dataset = from_examples(source)
    assert dataset.class_names == NAMES
    np.testing.assert_array_equal(dataset.labels, LABELS)


def test_labels_of_the_source_that_differ_from_those_of_examples_are_not_used():
    changed = [(pixels, int(label > 0)) for pixels, label in PAIRS]
    dataset = from_examples(Source(changed, classes=[*NAMES], targets=LABELS.tolist()))
    assert dataset.class_names == ("0", "1")
    np.testing.assert_array_equal(dataset.labels, LABELS > 0)


def test_parts_of_torch_datasets():
    whole = Source(PAIRS, classes=[*NAMES], targets=LABELS.tolist())
    part = Source(PAIRS[3:9], dataset=whole, indices=range(3, 9))
    joined = Source(PAIRS[3:9] + PAIRS, datasets=[part, whole])
    assert from_examples(part).class_names == NAMES
    dataset = from_examples(joined, fingerprint="v1")
    assert dataset.class_names == NAMES
    assert len(joined.read) == 8
    np.testing.assert_array_equal(dataset.labels, [*LABELS[3:9], *LABELS])


def test_class_names_can_be_set():
    assert from_examples(PAIRS, class_names={0: "a", 1: "b", 2: "c"}).counts() == {"a": 4, "b": 4, "c": 4}


def test_labels_with_one_entry_are_numbers():
    dataset = from_examples([(pixels, np.array([label])) for pixels, label in PAIRS])
    np.testing.assert_array_equal(dataset.labels, LABELS)


def test_validation_examples_are_held_out():
    dataset = from_examples(PAIRS[:9], validation=PAIRS[9:], class_names=NAMES)
    assert dataset.held_out is not None
    assert dataset.held_out.tolist() == [False] * 9 + [True] * 3
    assert dataset.names[9] == "validation example 0"
    train, validation = stratified_split(dataset, 0.5, 0)
    assert (len(train), len(validation)) == (9, 3)
    np.testing.assert_array_equal(validation.image(2), PIXELS[11])


# Errors.


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("photos", {}, "must be the examples themselves, got 'photos'; load_dataset"),
        (iter(PAIRS), {}, r"__getitem__.*list_iterator does not; pass list"),
        (grain.MapDataset.source(PAIRS).repeat(), {}, "endless .* without `repeat`"),
        (grain.MapDataset.source(PAIRS).to_iter_dataset(), {}, "__getitem__"),
        (
            grain.MapDataset.source(PAIRS).filter(lambda pair: pair[1] > 0),
            {},
            "example 0 is None, .*`filter` of grain",
        ),
        ([], {}, "no examples"),
        ({}, {}, "a dictionary of nothing"),
        (
            {"train": PAIRS, "test": PAIRS[:3]},
            {},
            r"'train' \(list of 12\), 'test' \(list of 3\); .*validation",
        ),
        (from_arrays(PIXELS, LABELS), {}, "is a dataset already"),
        (
            PAIRS,
            {"image": "jpg"},
            r"no key 'jpg'; its keys are 0 \(ndarray of shape \(10, 14, 3\)\), 1 \(int\)",
        ),
        (PAIRS, {"image": 0, "inputs": (0,)}, "not both"),
        (PAIRS, {"inputs": ()}, "inputs must be keys such as"),
        (PAIRS, {"label": [0, 1]}, "2 labels for 12 examples"),
        (PAIRS, {"label": LABELS, "validation": PAIRS}, "a list of labels has none of the validation"),
        (
            [{"a": x, "b": x, "label": y} for x, y in PAIRS],
            {},
            "image of an example is one of 'a', 'b'; .*image='a'",
        ),
        (
            [{"a": x, "x": y, "y": y} for x, y in PAIRS],
            {},
            "label of an example is one of 'x', 'y'; .*label='x'",
        ),
        (
            [{"text": "a b", "label": y} for _, y in PAIRS],
            {},
            r"no image .*'text' \(str\).* name them with inputs=",
        ),
        ([(x, np.eye(3)[y]) for x, y in PAIRS], {}, r"no label .*1 \(ndarray of shape \(3,\)\).*argmax"),
        ([(x, np.eye(3)[y]) for x, y in PAIRS], {"label": 1}, "example 0: the label must be one .*argmax"),
        (
            [(x, y) if y or i < 6 else (x,) for i, (x, y) in enumerate(PAIRS)],
            {"image": 0, "label": 1},
            r"example \d+: it has no key 1",
        ),
        ([(x, 0) for x, _ in PAIRS], {}, r"at least two classes are needed, got \['0'\]"),
        ([(x, y / 3) for x, y in PAIRS], {"label": 1}, "For measurements pass"),
        (
            Source([*PAIRS[:5], KeyError("blob"), *PAIRS]),
            {},
            "example 5: reading it raises KeyError: 'blob'; leave it out",
        ),
        (
            [(x / 255 * 2 - 1, y) for x, y in PAIRS],
            {},
            r"example 0: floating-point pixels must be in 0\.\.1, got -1",
        ),
    ],
)
def test_errors(source, options, message):
    with pytest.raises(ValueError, match=message):
        from_examples(source, **options)


@pytest.mark.parametrize("changing", ["image", "label"])
def test_random_examples_are_refused(changing):
    class Random(Source):
        def __getitem__(self, index: int):
            pixels, label = super().__getitem__(index)
            second = self.read[index] % 2
            return (pixels[:, ::-1], label) if changing == "image" and second else (pixels, label + second)

    with pytest.raises(ValueError, match=r"example \d+ differs when it is read twice"):
        from_examples(Random(PAIRS))


def test_a_bad_example_with_a_known_label_is_a_bad_image():
    source = Source([*PAIRS[:5], RuntimeError("blob"), *PAIRS[6:]], targets=LABELS.tolist())
    dataset = from_examples(source)
    assert dataset.labels[5] == LABELS[5]
    assert np.flatnonzero(scan_images(dataset).bad).tolist() == [5]
    with pytest.raises(BadImageError, match="example 5: reading it raises RuntimeError: blob"):
        dataset.image(5)


def test_different_classes_of_the_validation_source_are_refused():
    sources = [Source(PAIRS, classes=names, targets=LABELS.tolist()) for names in (["a", "b", "c"], [*NAMES])]
    with pytest.raises(ValueError, match="different classes"):
        from_examples(sources[0], validation=sources[1])
    assert from_examples(sources[0], validation=sources[1], class_names=NAMES).class_names == NAMES


def test_notes_name_what_was_decided():
    source = [{"image": x / 255, "photo": x, "label": y, "category": 0} for x, y in PAIRS]
    image, floating, label = from_examples(source).notes
    assert image == "the image of an example is 'image', not 'photo' (choose with image=...)"
    assert floating == "images are floating-point: 0..1 becomes 0..255"
    assert label == "the label of an example is 'label', not 'category' (choose with label=...)"


# Examples that are not images.


@pytest.fixture(scope="module")
def tokens() -> ImageDataset:
    return from_examples(TOKENS, inputs=("tokens", "length"))


def test_inputs_are_arrays_by_name(tokens):
    assert tokens.inputs == {"tokens": ((5,), np.dtype(np.int32)), "length": ((), np.dtype(np.float32))}
    assert tokens.class_names == NAMES
    arrays = tokens.arrays(4)
    assert arrays["tokens"].tolist() == [4, 5, 6, 7, 8]
    assert arrays["length"] == 4


def test_names_of_inputs_can_be_chosen():
    source = [([i, i], np.int64(i), i % 2) for i in range(8)]
    dataset = from_examples(source, inputs={"ids": 0, "double": lambda item: 2 * item[1]}, label=2)
    assert [*dataset.arrays(3)] == ["ids", "double"]
    assert dataset.arrays(3)["double"] == 6


def test_a_batch_has_inputs_in_place_of_images(tokens, preprocessing):
    part = dataclasses.replace(tokens, weights=np.ones(COUNT, np.float32)).subset([5, 4, 3])
    augmentation, rng = Augmentation(), np.random.default_rng(0)
    indices = np.array([1, 0])
    batches = [
        image_fetch(part, preprocessing)(indices),
        augmented_image_fetch(part, preprocessing, augmentation)(indices, np.arange(2), rng),
        view_fetch(part, preprocessing, augmentation, 0)(indices + 3),
    ]
    for batch in batches:
        assert set(batch) == {"inputs", "label", "index", "weight"}
        assert batch["inputs"]["tokens"].tolist() == [[4, 5, 6, 7, 8], [5, 6, 7, 8, 9]]
        assert batch["inputs"]["tokens"].dtype == np.int32
        assert batch["inputs"]["length"].shape == (2,)
        assert batch["label"].tolist() == [1, 2]


def test_inputs_pass_through_the_pipeline(tokens, preprocessing):
    fetch = image_fetch(tokens, preprocessing)
    last = [*ordered_batches(fetch, COUNT, batch_size=8)][-1]
    assert last["mask"].tolist() == [True] * 4 + [False] * 4
    assert last["inputs"]["tokens"][:, 0].tolist() == [8, 9, 10, 11, 11, 11, 11, 11]
    batch = next(iter(shuffled_batches(lambda i, places, rng: fetch(i), COUNT, batch_size=4, seed=0)))
    assert batch["inputs"]["tokens"][:, 0].tolist() == batch["index"].tolist()


def test_inputs_are_not_images(tokens):
    for use in (tokens.image, tokens.pil_image, tokens.summary):
        with pytest.raises(
            NotImagesError, match=r"needs images, but the examples are arrays \('tokens', 'length'\)"
        ):
            use(0)
    with pytest.raises(NotImagesError, match=r"a scan \(turn off on_bad_image"):
        scan_images(tokens)
    with pytest.raises(ValueError, match="are images"):
        from_examples(PAIRS).arrays(0)


def test_the_fingerprint_of_inputs_follows_names_and_values(tokens):
    renamed = from_examples(TOKENS, inputs={"ids": "tokens", "length": "length"})
    changed = from_examples([*TOKENS[:-1], {**TOKENS[-1], "length": 9.0}], inputs=("tokens", "length"))
    assert len({each.fingerprint for each in (tokens, renamed, changed)}) == 3


def test_bad_examples_are_zeros_where_predictions_skip_them(preprocessing):
    items = [*TOKENS[:5], {**TOKENS[5], "tokens": [1, 2]}, *TOKENS[6:]]
    dataset = from_examples(items, inputs="tokens", fingerprint="v1", label=[item["label"] for item in items])
    bad: dict[int, BadImageError] = {}
    batch = image_fetch(dataset, preprocessing, bad)(np.array([4, 5]))
    assert batch["inputs"]["tokens"].tolist() == [[4, 5, 6, 7, 8], [0] * 5]
    assert "'tokens' has shape (2,)" in str(bad[5])
    with pytest.raises(BadImageError, match="pad or truncate"):
        image_fetch(dataset, preprocessing)(np.array([5]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"tokens": [1, 2]},
            r"example 5: 'tokens' has shape \(2,\), but in example 0 it has \(5,\); .*pad or truncate",
        ),
        ({"tokens": [0.5] * 5}, "example 5: 'tokens' has dtype float32, but in example 0 it has int32"),
        ({"tokens": [2**40] * 5}, r"example 5: 'tokens' has values beyond int32: 1099511627776\.\."),
        (
            {"tokens": "a b"},
            "example 5: 'tokens' must be an array of numbers or booleans, got text; .*tokenizer",
        ),
        ({"tokens": [[1, 2], [3]]}, "example 5: 'tokens' has rows of several lengths; pad"),
        ({"tokens": None}, "'tokens' must be an array of numbers or booleans, got NoneType"),
    ],
)
def test_invalid_inputs(changed, message):
    items = [*TOKENS[:5], {**TOKENS[5], **changed}, *TOKENS[6:]]
    with pytest.raises(BadImageError, match=message):
        from_examples(items, inputs=("tokens", "length"))


# Training.


def test_examples_with_any_keys_are_trained_on_and_predicted(toy: str, tmp_path: Path):
    source = [{"photo": Image.fromarray(x), "kind": NAMES[y]} for x, y in PAIRS]
    config = TrainConfig(
        images="mine",
        model=toy,
        weights="none",
        batch_size=4,
        threads=1,
        schedule=tj.feature_extraction(epochs=1),
    )
    dataset = from_examples(source, validation=source[:6])
    result = tj.fit(config, tmp_path / "run", dataset=dataset)
    assert 0 <= result.metrics["accuracy"] <= 1
    # A finished run is read, with the same examples from another source.
    again = from_examples(grain.MapDataset.source(source), validation=source[:6])
    assert tj.fit(config, tmp_path / "run", dataset=again).metrics == result.metrics
    probabilities = predict_dataset(tmp_path / "run", from_examples(PAIRS, class_names=NAMES))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


@pytest.fixture(scope="module")
def tokens_run(tokens: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> tj.Result:
    """A run of a model of arrays, with cached features in both phases."""
    params = {"embed": jnp.ones((20, 4)), "mix": jnp.eye(4)}

    def features(params, state, batch, key):
        x = params["embed"][batch["tokens"]].mean(1) * batch["length"][:, None]
        return x @ params["mix"]

    batch = tokens.input_batch([0, 1])
    model = tj.own_model((features, params, None), inputs=("tokens", "length"), batch=batch)
    phases = (
        tj.Phase(name="head", train="head", epochs=1, learning_rate=0.1),
        tj.Phase(name="top", train="from_('mix')", epochs=1, learning_rate=0.1, augment=True, views=1),
    )
    config = TrainConfig(
        images="texts", val_fraction=0.5, batch_size=4, threads=1, schedule=tj.Schedule(phases)
    )
    return tj.fit(config, tmp_path_factory.mktemp("run"), dataset=tokens, model=model)


def test_a_model_of_arrays_is_trained_on_cached_features(tokens: ImageDataset, tokens_run: tj.Result):
    assert [phase.boundary for phase in tokens_run.phases] == ["pre_logits", "embed"]
    assert [phase.extracted for phase in tokens_run.phases] == [COUNT, COUNT]
    assert 0 <= tokens_run.metrics["accuracy"] <= 1
    assert not (tokens_run.workdir / "mistakes").exists()
    probabilities = predict_dataset(tokens_run.workdir, tokens)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)


@pytest.mark.extended
def test_a_model_of_arrays_is_diagnosed(tokens: ImageDataset, tokens_run: tj.Result):
    found = tj.diagnose(tokens_run.workdir, dataset=tokens)
    assert found.omitted["maps"] == "the examples are not images"
    assert found.cka is not None
    assert found.train is not None


def test_other_examples_are_noticed_when_a_run_resumes(tokens: ImageDataset):
    changed = from_examples([{**TOKENS[0], "length": 0.0}, *TOKENS[1:]], inputs=("tokens", "length"))
    starts = [
        PartStart.of(each) for each in (tokens, from_examples(TOKENS, inputs=("tokens", "length")), changed)
    ]
    assert starts[0] == starts[1]
    assert starts[0].change(starts[2], "training") == "training images with the same names and other contents"


# Other libraries.


@pytest.mark.extended
def test_torch_datasets():
    torch = pytest.importorskip("torch")
    data = torch.utils.data
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
    whole = data.TensorDataset(images, torch.from_numpy(LABELS))
    dataset = from_examples(whole)
    assert dataset.fingerprint == from_examples(PAIRS).fingerprint
    part = from_examples(data.Subset(whole, [3, 1, 2]), validation=data.ConcatDataset([whole, whole]))
    assert part.labels.tolist() == [0, 1, 2, *LABELS, *LABELS]
    np.testing.assert_array_equal(part.image(1), PIXELS[1])
    with pytest.raises(ValueError, match="DataLoader does not; pass its `dataset`"):
        from_examples(data.DataLoader(whole))


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [None, "numpy", "torch", "undecoded"])
def test_hugging_face_datasets(form: str | None):
    datasets = pytest.importorskip("datasets")
    if form == "torch":
        pytest.importorskip("torch")
    features = {
        "img": datasets.Image(),
        "kind": datasets.ClassLabel(names=[*NAMES]),
        "id": datasets.Value("string"),
    }
    columns = {
        "img": [Image.fromarray(x) for x in PIXELS],
        "kind": LABELS.tolist(),
        "id": [*map(str, range(COUNT))],
    }
    source = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    if form == "undecoded":
        source = source.cast_column("img", datasets.Image(decode=False))
    elif form is not None:
        source = source.with_format(form)
    read = []
    dataset = from_examples(source, label="kind", progress=read.append)
    assert not read
    assert dataset.class_names == NAMES
    np.testing.assert_array_equal(dataset.labels, LABELS)
    np.testing.assert_array_equal(dataset.image(7), PIXELS[7])
    with pytest.raises(ValueError, match=r"'train' \(Dataset\)"):
        from_examples(datasets.DatasetDict(train=source, test=source))
