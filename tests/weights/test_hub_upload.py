"""Uploads to a hub on this machine with its own client, and downloads from there."""

from pathlib import Path

import pytest
from local_hub import READER, TOKEN, LocalHub, local_hub

from transfer_jax import from_pretrained, push_to_hub
from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.saved_model import SavedModel

pytestmark = [
    pytest.mark.extended,
    pytest.mark.filterwarnings("ignore:Use 'content=<...>'"),  # Of the hub's client.
]
TINY = "efficientnet_lite_tiny"
SAVED = SavedModel(
    model=TINY,
    task=SingleLabel(("ant", "bee")),
    preprocessing=Preprocessing(image_size=32, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # Between retries.
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with local_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def save(folder: Path, seed: int) -> Path:
    _, params, stats = split(create_model(TINY, 2, seed=seed))
    SAVED.save(folder, {**params, **stats})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("model"), 0)


def test_a_model_is_uploaded_and_read_back_bit_for_bit(hub: LocalHub, model: Path):
    address = push_to_hub(model, "ann/photos", private=True, message="First")
    assert address == f"{hub.url}/ann/photos/commit/{hub.commit('ann/photos')}"
    assert "ann/photos" in hub.private
    assert hub.messages == ["First"]
    weights = (model / "weights.safetensors").read_bytes()
    files = hub.files("ann/photos")
    assert files is not None
    assert set(files) == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert files["model.safetensors"] == weights
    found = from_pretrained("hf://ann/photos")
    assert found.saved == SAVED
    _, params, stats = split(found.network)
    _, known, known_stats = split(SavedModel.load(model)[1])
    for path, array in {**known, **known_stats}.items():
        assert {**params, **stats}[path].tobytes() == array.tobytes(), path


def test_a_newer_commit_is_used_and_an_older_one_by_its_revision(hub: LocalHub, model: Path, tmp_path: Path):
    push_to_hub(model, "hf://ann/photos")
    first = hub.commit("ann/photos")
    before = from_pretrained("hf://ann/photos").network.head.classifier.kernel[...].tobytes()
    puts = hub.asked.count(("PUT", "/objects"))
    push_to_hub(save(tmp_path / "other", 1), "ann/photos")
    assert hub.asked.count(("PUT", "/objects")) == puts + 1
    assert from_pretrained("hf://ann/photos").network.head.classifier.kernel[...].tobytes() != before
    old = from_pretrained(f"hf://ann/photos@{first}")
    assert old.network.head.classifier.kernel[...].tobytes() == before


def test_unchanged_files_are_not_uploaded_again(hub: LocalHub, model: Path):
    push_to_hub(model, "ann/photos")
    commits = len(hub.repos["ann/photos"])
    push_to_hub(model, "ann/photos")
    assert len(hub.repos["ann/photos"]) == commits
    assert hub.asked.count(("PUT", "/objects")) == 1


def test_a_card_may_be_kept(hub: LocalHub, model: Path):
    push_to_hub(model, "ann/photos")
    hub.repos["ann/photos"][-1]["README.md"] = b"---\nlicense: mit\n---\nMine"
    push_to_hub(model, "ann/photos", card=False)
    assert hub.repos["ann/photos"][-1]["README.md"].endswith(b"Mine")


def test_without_a_connection_the_last_download_is_used(hub: LocalHub, model: Path, monkeypatch):
    push_to_hub(model, "ann/photos")
    from_pretrained("hf://ann/photos")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert from_pretrained("hf://ann/photos").saved == SAVED
    with pytest.raises(ConnectionError, match="hf://ann/others is not on this machine"):
        from_pretrained("hf://ann/others")
    with pytest.raises(ConnectionError, match="the Hugging Face hub does not respond"):
        push_to_hub(model, "ann/photos")


@pytest.mark.parametrize(
    ("token", "message"),
    [("", "not logged in"), ("hf_unknown", "not logged in"), (READER, "no right to write there")],
)
def test_errors_of_the_token(hub: LocalHub, model: Path, monkeypatch, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(PermissionError, match=f"hf://ann/photos: {message}"):
        push_to_hub(model, "ann/photos")


def test_missing_repositories_and_revisions_are_named(hub: LocalHub, model: Path):
    with pytest.raises(FileNotFoundError, match=r"hf://ann/photos: .*Repository Not Found"):
        from_pretrained("hf://ann/photos")
    push_to_hub(model, "ann/photos")
    with pytest.raises(FileNotFoundError, match=r"hf://ann/photos@v2: .*Revision Not Found"):
        from_pretrained("hf://ann/photos@v2")


def test_a_repository_of_another_library_has_no_model(hub: LocalHub):
    hub.repos["timm/net"] = [{}, {"config.json": b'{"architecture": "resnet50"}', "README.md": b""}]
    with pytest.raises(FileNotFoundError, match="no trained model"):
        from_pretrained("hf://timm/net")
