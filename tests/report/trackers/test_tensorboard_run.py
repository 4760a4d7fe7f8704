import io
import json
import struct

import pytest
from PIL import Image

from transfer_jax.report.trackers.tensorboard_run import open_run

pytest.importorskip("tensorboardX")


def events(workdir):
    """Returns the (step, value) of each written event by tag, files in order."""
    from tensorboardX.proto import event_pb2

    found = {}
    for file in sorted((workdir / "tensorboard").iterdir()):
        content = file.read_bytes()
        while len(content) > 12:
            (length,) = struct.unpack("<Q", content[:8])
            if len(content) < 16 + length:
                break  # The event is incomplete.
            event = vars(event_pb2)["Event"].FromString(content[12 : 12 + length])
            content = content[12 + length + 4 :]
            for value in event.summary.value:
                shown = value.simple_value if value.HasField("simple_value") else value
                found.setdefault(value.tag, []).append((event.step, shown))
    return found


def test_scalars_config_and_images_can_be_read_back(workdir, config, picture):
    tracker = open_run(workdir, config, None)
    tracker.log(3, {"train/loss": 0.5, "train/rates/head": 0.25})
    tracker.log(6, {"train/loss": 0.125})
    assert events(workdir)["train/loss"] == [(3, 0.5), (6, 0.125)]
    tracker.log_image(6, picture)
    tracker.close(finished=True)
    found = events(workdir)
    assert found["train/rates/head"] == [(3, 0.25)]
    ((step, value),) = found["curves"]
    assert step == 6
    shown = Image.open(io.BytesIO(value.image.encoded_image_string))
    assert (shown.size, shown.convert("RGB").getpixel((5, 5))) == ((30, 20), (255, 0, 0))
    ((_, text),) = found["config/text_summary"]
    assert json.loads(text.tensor.string_val[0].decode().strip("`\n")) == config


def test_a_resumed_run_adds_a_file(workdir, config):
    first = open_run(workdir, config, None)
    first.log(1, {"train/loss": 1.0})
    first.close(finished=False)
    second = open_run(workdir, config, first.id)
    second.log(2, {"train/loss": 0.5})
    second.close(finished=True)
    found = events(workdir)
    assert found["train/loss"] == [(1, 1.0), (2, 0.5)]
    assert len(found["config/text_summary"]) == 1


def test_a_full_disk_is_an_error_at_once(workdir, config, monkeypatch):
    tracker = open_run(workdir, config, None)
    tracker.log(1, {"train/loss": 1.0})

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        for step in range(2, 30):
            with pytest.raises(OSError, match="No space left"):
                tracker.log(step, {"train/loss": 1.0, "train/accuracy": 0.5})
    tracker.close(finished=True)


def test_classes_with_similar_names_stay_apart(workdir, config):
    tracker = open_run(workdir, config, None)
    tracker.log(1, {"per_class/$1/f1": 0.25, "per_class/€1/f1": 0.5})
    tracker.close(finished=True)
    found = {tag: values for tag, values in events(workdir).items() if tag.startswith("per_class/_1/f1")}
    assert sorted(found.values()) == [[(1, 0.25)], [(1, 0.5)]]
