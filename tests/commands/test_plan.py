import json
import re

from local_bucket import folder

from transfer_jax import Phase, Schedule, TrainConfig, cli
from transfer_jax.data.remote.pack import pack
from transfer_jax.storage import object_cache
from transfer_jax.storage.atomic_write import write_text


def test_it_shows_what_is_read_from_object_storage(
    toy, toy_images, image_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv(object_cache.FOLDER, str(tmp_path / "objects"))
    everything = Phase(name="everything", train="all_()", epochs=2, learning_rate=1e-3)
    with folder(tmp_path / "bucket", monkeypatch) as kind:
        pack(toy_images, f"{kind}://bucket/packed", shards=2)
        for images in (f"records:{kind}://bucket/packed", str(image_folder)):
            config = TrainConfig(
                images=images, model=toy, weights="none", schedule=Schedule((everything,)), batch_size=12
            )
            write_text(tmp_path / "config.json", json.dumps(config.to_json()))
            assert cli.main(["plan", str(tmp_path / "config.json")]) == 0, capsys.readouterr()
            shown = capsys.readouterr().out
            assert ("Reads from object storage, each of 1 host" in shown) == images.startswith("records:")
            rows = re.findall(r"an epoch, --order (\w+) +(\d+) ", shown)
            assert rows == ([("global", "36"), ("blocks", "36")] if images.startswith("records:") else [])
