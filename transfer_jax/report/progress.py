"""What a long piece of work tells whoever watches."""

from typing import Protocol


class Progress(Protocol):
    """Where a run reports to; `transfer_jax.cli` shows it as bars."""

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        """A task of `total` images begins, `done` of them from before."""
        ...

    def advance(self, images: int, **values: float) -> None:
        """Some more images are done; `values` such as the loss belong to them."""
        ...

    def finish(self) -> None:
        """The task is done."""
        ...

    def say(self, message: str) -> None:
        """Something worth a line."""
        ...


class Silent:
    """Tells nobody."""

    def start(self, task: str, total: int, *, done: int = 0) -> None: ...
    def advance(self, images: int, **values: float) -> None: ...
    def finish(self) -> None: ...
    def say(self, message: str) -> None: ...
