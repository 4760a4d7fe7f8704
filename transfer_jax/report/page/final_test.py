"""The section of a report on the test images of a run."""

from transfer_jax.counted import counted
from transfer_jax.report.page.elements import Section, Text, Tile, Tiles
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.tasks import task_class


def scores_of_test_images(run: RunFiles) -> Section | None:
    """Returns the scores of the test images; None if there are none, or the run is not finished."""
    scores = run.test_scores
    if not scores:
        return None
    metrics = [each for each in task_class(scores).metrics if each.of(scores) is not None]
    tiles = [Tile(each.title, each.text(each.of(scores)), each.note) for each in metrics]
    text = (
        f"The model was scored once on {counted(scores['images'], 'test image')}, at the end of the run. "
        "They chose neither the epochs nor anything else, so these scores are those to expect of new images."
    )
    return Section("Test images", [Text([text]), Tiles(tiles)])
