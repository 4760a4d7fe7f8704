"""The text that explains a split: the features, the reasons for the boundary, and other boundaries."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transfer_jax.freezing.function_split.split import Feature, Split


def explain(split: "Split") -> str:
    """Returns the explanation of a split, in lines of text."""
    cost = split.cost
    lines = [f"Cached for each example: {_bytes(cost.bytes)}"]
    lines += [f"  {name}: {_line(feature)}" for name, feature in split.features.items()]
    if not split.features:
        lines.append("  nothing; each step starts from the batch")
    if cost.bytes > cost.batch_bytes > 0:
        lines.append(
            f"The features are larger than the arrays of the batch that they replace, {_bytes(cost.bytes)} "
            f"against {_bytes(cost.batch_bytes)}: a cache saves operations, but no memory"
        )
    lines.append(f"Read from the batch in each step: {', '.join(split.inputs) or 'nothing'}")
    lines.append(
        f"Operations for each example: {_flops(cost.prefix_flops)} once, {_flops(cost.suffix_flops)} "
        f"in each step, instead of {_flops(cost.flops)} in each step"
    )
    if cost.repeated_flops:
        repeated = _flops(cost.repeated_flops)
        lines.append(f"Repeated in each step, because features would be larger: {repeated}")
    lines.append("In each step, because of:")
    lines += [f"  {cause.text}{_at(cause.source)}" for cause in split.causes()]
    if split.mixing:
        lines.append("Operations that mix examples:")
        lines += [f"  {cause.text}{_at(cause.source)}" for cause in split.mixing]
    alternatives = split.alternatives()
    if alternatives:
        lines.append("Other boundaries:")
        for features in alternatives:
            total = _bytes(sum(feature.bytes for feature in features))
            lines.append(f"  {total}: {'; '.join(map(_line, features))}")
    return "\n".join(lines)


def _line(feature: "Feature") -> str:
    shape = "x".join(map(str, feature.shape)) or "scalar"
    return f"{shape} {feature.dtype}, {_bytes(feature.bytes)}, {feature.operation}"


def _at(source: str) -> str:
    return f" ({source})" if source else ""


def _bytes(count: float) -> str:
    return (
        f"{count / 1e6:.1f} MB"
        if count >= 1e6
        else f"{count / 1e3:.1f} kB"
        if count >= 1e3
        else f"{count:.0f} bytes"
    )


def _flops(count: float) -> str:
    return f"{count / 1e9:.2f} GFLOP" if count >= 1e9 else f"{count / 1e6:.2f} MFLOP"
