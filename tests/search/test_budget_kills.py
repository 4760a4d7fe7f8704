import json
import os
import signal
import subprocess
import sys
import time

import pytest

from transfer_jax.data import from_folder
from transfer_jax.runs.predict import predict_dataset

pytestmark = pytest.mark.extended


def finished_trials(workdir):
    path = workdir / "search.json"
    trials = json.loads(path.read_bytes())["trials"] if path.is_file() else []
    return [each for each in trials if each["status"] == "finished"]


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM], ids=lambda kill: kill.name)
def test_a_killed_search_has_a_model_and_continues(kill, image_folder, tmp_path):
    workdir = tmp_path / "search"
    command = [sys.executable, "-m", "transfer_jax", "train", "--images", str(image_folder), "--budget", "2h"]
    command += ["--model", "efficientnet_lite_tiny", "--weights", "none", "--image-size", "32"]
    seen = []
    for wanted in (1, 2):
        with (tmp_path / f"log{wanted}.txt").open("w") as log:
            process = subprocess.Popen(
                [*command, "--workdir", str(workdir)], stdout=log, stderr=log, env=os.environ
            )
            while len(finished_trials(workdir)) < wanted:
                assert process.poll() is None, (tmp_path / f"log{wanted}.txt").read_text()
                time.sleep(0.1)
            process.send_signal(kill)
            code = process.wait(120)
        assert code in ((75, 0) if kill == signal.SIGTERM else (-kill,))
        found = finished_trials(workdir)
        assert [each["name"] for each in found][: len(seen)] == seen  # None is repeated.
        seen = [each["name"] for each in found]
        assert predict_dataset(workdir, from_folder(image_folder)).shape == (48, 3)
    record = json.loads((workdir / "search.json").read_bytes())
    assert record["best"] in seen
    assert all(each["ended"] <= record["used"] for each in record["trials"] if each["ended"])
