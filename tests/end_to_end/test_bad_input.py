"""What goes wrong outside of the code: each mistake is one clear line, and leaves nothing half-written."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from transfer_jax import Phase, Schedule, TrainConfig, fit
from transfer_jax.data import load_dataset, stratified_split
from transfer_jax.features import FeatureCache

pytestmark = pytest.mark.usefixtures("toy")
TOY = ("--model", "toy", "--weights", "none")
SHORT = ("--schedule.phases.0.epochs", 2, "--schedule.phases.1.epochs", 1, "--schedule.phases.1.views", 1)


def fails(outcome, *parts: object) -> None:
    """One line, behind what was chosen and found, exit code 2, and no traceback."""
    assert outcome.code == 2, outcome.err
    line = mistake(outcome.said)
    for part in parts:
        assert str(part) in line


def mistake(said: list[str]) -> str:
    """The line that names it: the last of what was said, and the only one of its kind."""
    assert [line.startswith("error: ") for line in said] == [False] * (len(said) - 1) + [True]
    assert "Traceback" not in " ".join(said)
    return said[-1]


def flip(path: Path) -> None:
    """Flips the bits of the byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.fixture
def folder(draw: Callable[..., Path], tmp_path: Path) -> Path:
    """Twelve images to spoil."""
    return draw(tmp_path / "colours", 4)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(b"GARBAGE" * 50), "not an image of a known format"),
        (flip, "cannot be decoded"),
        (_cut, "cannot be decoded"),
    ],
    ids=["empty", "garbage", "flipped", "cut"],
)
def test_bad_image(spoil: Callable, reason: str, folder: Path, run: Callable, tmp_path: Path) -> None:
    """It is named, and nothing of its batch gets into a cache or a checkpoint."""
    name = stratified_split(load_dataset(str(folder)), 0.25, 0)[0].names[0]
    spoil(folder / name)
    workdir = tmp_path / "run"
    fails(run("train", "--images", folder, *TOY, *SHORT, "--workdir", workdir), name, reason)
    assert not list(workdir.glob("features/*/shard-*"))
    assert not list(workdir.glob("checkpoints/steps/*"))


def test_bad_images_are_skipped_on_demand(folder: Path, run: Callable, tmp_path: Path) -> None:
    (folder / "red/01.png").write_bytes(b"")
    (folder / "blue/02.png").write_text("no image")
    workdir = tmp_path / "run"
    command = ("train", "--images", folder, *TOY, *SHORT, "--workdir", workdir, "--on-bad-image", "skip")
    done = run(*command)
    assert done.code == 0, done.err
    assert any("2 bad images are skipped" in line for line in done.said)
    blue, red = (workdir / "skipped_images.txt").read_text().splitlines()
    assert blue.startswith("blue/02.png: ")
    assert red == "red/01.png: the file is empty"
    assert fit(_begun(workdir), workdir).metrics["images"] == 3  # A quarter of ten, rounded up.
    assert run("evaluate", workdir).code == 0


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are UTF-8 there")
@pytest.mark.extended
def test_names_that_are_not_utf_8(folder: Path, run: Callable, tmp_path: Path) -> None:
    images = folder.rename(tmp_path / "d\udce9r")
    (images / "red").rename(images / "r\udce9d")
    (images / "blue" / "n\udce9w.png").symlink_to("gone.png")
    options = ("--images", images, "--workdir", tmp_path / "run", *TOY, *SHORT, "--on-bad-image", "skip")
    for words in (
        ("train", *options),
        ("evaluate", tmp_path / "run"),
        ("predict", tmp_path / "run", images, "--out", tmp_path / "out.csv"),
        ("report", tmp_path / "run"),
    ):
        outcome = run(*words)
        assert outcome.code == 0, outcome.err
    assert len((tmp_path / "out.csv").read_text(errors="surrogateescape").splitlines()) == 1 + len(
        list(images.rglob("*.png"))
    )
    assert r"r\xe9d" in json.loads((tmp_path / "run" / "model" / "model.json").read_text())["task"]["names"]


def _begun(workdir: Path) -> TrainConfig:
    return TrainConfig.from_json(json.loads((workdir / "config.json").read_text()))


def test_folders_that_cannot_be_split(draw: Callable, run: Callable, tmp_path: Path) -> None:
    command = (*TOY, "--workdir", tmp_path / "run")
    flat = draw(tmp_path / "flat", 4, classes=("train", "test"))
    fails(run("train", "--images", flat, *command), flat, "no class folders in 'train', 'test'")
    single = draw(tmp_path / "single", 4, classes=("blue",))
    fails(run("train", "--images", single, *command), "only the class folder 'blue'")
    lonely = draw(tmp_path / "lonely", 1)
    fails(run("train", "--images", lonely, *command), "each class has a single image")
    fails(run("train", "--images", tmp_path / "nowhere", *command), tmp_path / "nowhere")
    few = draw(tmp_path / "few", 2)
    quarter = ("--val-fraction", 0.25)  # Unless it is given, more are held out of so few.
    fails(run("train", "--images", few, *command, *quarter), "val_fraction 0.25 leaves 2 validation images")
    fails(
        run("train", "--images", draw(tmp_path / "some", 3), *command, "--accumulate", 32),
        "6 training images cannot be split into accumulate=32 parts",
    )
    assert not (tmp_path / "run").exists()


def test_workdir_that_cannot_be(images: Path, run: Callable, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    for command in ("train", "extract"):
        under = run(command, "--images", images, *TOY, "--workdir", file / "deep/run")
        fails(under, file / "deep/run", f"{file} is a file")
        among = run(command, "--images", images, *TOY, "--workdir", images / "run")
        fails(among, images / "run", "inside the folder of the images")
    assert file.read_text() == "in the way"
    assert not (images / "run").exists()


def test_workdir_of_another_config(folder: Path, run: Callable, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    command = ("train", "--images", folder, *TOY, *SHORT, "--workdir", workdir)
    assert run(*command).code == 0
    before = (workdir / "config.json").read_bytes()
    other = run(*command, "--seed", 5, "--schedule.phases.1.learning-rate", 0.5)
    fails(other, "another config", "seed was 0, now 5", "schedule.phases.1.learning_rate was 0.0001, now 0.5")
    assert (workdir / "config.json").read_bytes() == before
    assert run(*command, "--threads", 1).code == 0  # Does not change what is learnt.

    shutil.rmtree(workdir / "model")
    fails(run("predict", workdir, folder), workdir, "no trained model")
    fails(run("predict", tmp_path / "nowhere", folder), tmp_path / "nowhere", "no trained model")
    (workdir / "config.json").write_text("{}")
    fails(run(*command), workdir / "config.json", "not a config that this version can read")
    (workdir / "config.json").write_text('{"seed"')
    fails(run(*command), workdir / "config.json", "damaged")


def test_images_that_changed_under_a_run(
    folder: Path, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another split would mix training with held-out images, and steps would not be those of before."""
    workdir = tmp_path / "run"
    config = TrainConfig(
        images=str(folder),
        model="toy",
        weights="none",
        schedule=Schedule(
            tuple(Phase(name=name, train="head", epochs=1, learning_rate=0.1) for name in ("one", "two"))
        ),
    )
    _stop_in_second_phase(config, workdir, monkeypatch)
    (folder / "red/03.png").rename(folder / "red/04.png")
    with pytest.raises(ValueError, match=r"has other images than when .* was started"):
        fit(config, workdir)
    (folder / "red/04.png").rename(folder / "red/03.png")
    assert len(fit(config, workdir).phases) == 2


def _stop_in_second_phase(config: TrainConfig, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transfer_jax.report.progress import Silent

    class Stop(Silent):
        def start(self, task: str, total: int, *, done: int = 0) -> None:
            if task == "training two":
                raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(config, workdir, progress=Stop())


class _Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_malicious_checkpoint(images: Path, run: Callable, tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    file = tmp_path / "weights.pth"
    file.write_bytes(pickle.dumps({"weight": _Malicious(f"touch {witness}")}, protocol=2))
    subprocess.run(["/bin/sh", "-c", f"touch {witness}"], check=True)  # It would have worked.
    witness.unlink()
    command = ("--images", images, "--model", "toy", "--weights", file)
    workdir = tmp_path / "run"
    fails(run("train", *command, "--workdir", workdir), file, "not of a PyTorch checkpoint")
    assert not witness.exists()
    assert not workdir.exists()


def test_evaluate_with_other_classes(folder: Path, draw: Callable, run: Callable, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    assert run("train", "--images", folder, *TOY, *SHORT, "--workdir", workdir).code == 0
    others = draw(tmp_path / "others", 2, classes=("blue", "green", "crimson"))
    fails(run("evaluate", workdir, "--images", others), "'red'", "'crimson'")
    fails(run("predict", workdir, folder / "nowhere.png"), folder / "nowhere.png")
    fails(run("predict", workdir, tmp_path / "others/blue/../../others", "--out", "x.txt"), "x.txt", ".csv")
    fails(run("predict", workdir, folder, "--out", tmp_path / "no/x.csv"), tmp_path / "no")
    void = tmp_path / "void"
    void.mkdir()
    fails(run("predict", workdir, void), void, "no images")
    (void / "bad.png").write_bytes(b"")
    fails(run("predict", workdir, void, "--out", tmp_path / "x.csv"), "bad.png: the file is empty")
    assert not (tmp_path / "x.csv").exists()


def test_damaged_features_are_healed(
    folder: Path, run: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ("extract", "--images", folder, *TOY, "--workdir", tmp_path)
    assert run(*command).code == 0
    files = _features(tmp_path)
    assert len(files) == 6
    for name in ("shard-00000.npy", "labels.npy", "manifest.json"):
        spoilt = next(path for path in files if path.name == name)
        flip(spoilt)
        healed = run(*command)
        assert healed.code == 0, healed.err
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert str(spoilt) in record.getMessage()
        assert _features(tmp_path) == files
        caplog.clear()
    assert run(*command).code == 0
    assert not caplog.records


def _features(workdir: Path) -> dict[Path, object]:
    files = [path for path in workdir.glob("features/[!.]*/*") if path.is_file()]
    return {p: p.read_bytes() if p.suffix == ".npy" else json.loads(p.read_text()) for p in files}


def test_damaged_checkpoint(folder: Path, run: Callable, tmp_path: Path) -> None:
    """The file is named, and what the message advises works."""
    workdir = tmp_path / "run"
    command = ("train", "--images", folder, *TOY, *SHORT, "--workdir", workdir)
    assert run(*command).code == 0
    trained = (workdir / "model/weights.safetensors").read_bytes()
    steps = sorted((workdir / "checkpoints/steps").iterdir(), key=lambda path: int(path.name))
    assert [path.name for path in steps] == ["2", "3"]
    largest = max((path for path in steps[-1].rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    flip(largest)
    fails(run(*command), largest, f"delete {steps[-1]} to ")
    shutil.rmtree(steps[-1])
    (workdir / "model/weights.safetensors").unlink()
    done = run(*command)
    assert done.code == 0, done.err
    assert (workdir / "model/weights.safetensors").read_bytes() == trained


# In a mount namespace of its own, so that the disk goes away with the process, however that ends.
FULL_DISK = """
mount -t tmpfs -o size=600k none "$1" || exit 99
shift 2
"$@"
echo "first $?"
cp -a "$DISK" "$COPIES/full"
mount -o remount,size=20m "$DISK"
"$@"
echo "second $?"
cp -a "$DISK" "$COPIES/done"
"""


@pytest.mark.extended
def test_full_disk(images: Path, start: Callable, tmp_path: Path) -> None:
    """What was written stays valid, and with space the extraction goes on."""
    disk, copies = tmp_path / "disk", tmp_path / "copies"
    disk.mkdir()
    copies.mkdir()
    command = (
        "train",
        "--images",
        images,
        "--model",
        "efficientnet_lite_tiny",
        "--weights",
        "none",
        *SHORT,
        "--schedule.phases.0.augment",
    )
    command = (*command, "--schedule.phases.0.views", 4, "--schedule.phases.0.cache", "require")
    command = (*command, "--workdir", tmp_path / "run")
    shell = ("unshare", "--mount", "env", f"DISK={disk}", f"COPIES={copies}", "sh", "-c", FULL_DISK, "sh")
    small_shards = (Path(__file__).with_name("stopped_run.py"), "never", 0, 0)  # 32 rows each, 164 kB.
    both = start(disk, "--", sys.executable, *small_shards, *command, "--feature-dir", disk, before=shell)
    if not both.out.startswith("first"):
        pytest.skip(f"may not mount a disk: {both.err}")

    first, second = (line for line in both.out.splitlines() if line.startswith(("first", "second")))
    assert (first, second) == ("first 2", "second 0")
    error = mistake(both.said)
    assert os.strerror(errno.ENOSPC) in error
    assert "shard-00003.npy" in error
    (full,) = (copies / "full").glob("[!.]*")
    done = copies / "done" / full.name
    files = {path.name: path.stat().st_mtime_ns for path in full.iterdir()}
    shards = [f"shard-{i:05d}.{end}" for i in range(3) for end in ("note.json", "npy")]
    assert sorted(files) == ["labels.npy", "manifest.json", *shards]
    after = {path.name: path.stat().st_mtime_ns for path in done.iterdir()}
    assert len(after) == 8
    assert all(after[name] == files[name] for name in files if name.endswith(".npy"))
    assert len(FeatureCache(done)) == 4 * 45
