"""The limits of a server."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a server, which bound its memory and the time that a request waits.

    Attributes:
        body_bytes: Largest size of the body of a request, in bytes.
        pixels: Largest number of pixels of an image.
        images: Largest number of images that are waiting or computed; further ones are refused.
        seconds: Longest time that a client takes to send its body, in seconds.
    """

    body_bytes: int = 20_000_000
    pixels: int = 50_000_000
    images: int = 64
    seconds: float = 30.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value <= 0:
                raise ValueError(f"{field.name} must be positive, got {value}")
