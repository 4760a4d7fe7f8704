"""The command `transfer-jax push`: a trained model for others."""

from pathlib import Path
from typing import Annotated

import tyro

from transfer_jax.report.console import CONSOLE, OUT, print_line


def push(
    workdir: Annotated[Path, tyro.conf.Positional],
    repo: Annotated[str, tyro.conf.Positional] = "",
    folder: Path | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str = "",
    licence: Annotated[str | None, tyro.conf.arg(aliases=["--license"])] = None,
    card: bool = True,
    adapters_only: bool = False,
) -> None:
    """Uploads a trained model with its model card to the Hugging Face hub.

    The card is made from the run: images, scores with intervals, what was frozen in which phase, the licence
    of the pretrained weights, the command. `tj.from_pretrained("hf://OWNER/NAME")` and all commands that take
    the folder of a run read the model back. Log in with `hf auth login` first, or set `HF_TOKEN`.

    Args:
        workdir: Folder of a finished run.
        repo: The repository, `OWNER/NAME`; it is created if it is missing.
        folder: A folder to write instead; nothing is uploaded. Look at its README.md before you upload.
        private: Whether a repository that is created is private.
        revision: The branch; by default `main`.
        message: The message of the commit.
        licence: SPDX identifier of the licence of the model, such as MIT; by default that of the pretrained
            weights.
        card: Whether to write the model card; without it the README.md of the repository stays.
        adapters_only: Whether to upload the adapters and the head only, of a run that trained no more. Who
            reads them needs the pretrained weights.
    """
    from transfer_jax.runs.push import push_to_hub, write_folder
    from transfer_jax.weights.hub_upload import repo_id

    options = {"licence": licence, "card": card, "adapters_only": adapters_only}

    if folder is not None:
        place = f"hf://{repo_id(repo)}" if repo else ""
        write_folder(workdir, folder, place=place, **options)
        print_line(OUT, f"Written, not uploaded: {folder}")
        return
    if not repo:
        raise ValueError("name a repository, as `transfer-jax push RUN OWNER/NAME`, or a --folder to write")
    with CONSOLE.status(f"uploading to {repo}"):
        address = push_to_hub(workdir, repo, private=private, revision=revision, message=message, **options)
    print_line(OUT, f"Uploaded: {address}")
