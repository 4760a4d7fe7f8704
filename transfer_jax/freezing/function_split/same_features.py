"""The split of another version of a function at the same features, such as its inference mode."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.freezing.function_split.boundary import Boundary
from transfer_jax.freezing.function_split.jaxprs import Var, as_text, is_literal
from transfer_jax.freezing.function_split.sized_program import Signature, SizedProgram
from transfer_jax.freezing.function_split.split import Split


def split_at(split: Split, function: Callable[..., Any], *, key: Any = None) -> Split:
    """Splits another version of a function at the features of a split.

    A model in training mode and the same model in inference mode have the same frozen part, but are two
    functions. Both splits have the same features, so that a cache serves training and evaluation.

    Example:
        >>> split = split_frozen(training_function, params, labels, batch, key=jax.random.key(0))
        >>> evaluation = split_at(split, inference_function)
        >>> logits = evaluation.suffix(trainable, frozen, state, features, batch, None)

    Args:
        split: The split.
        function: The other version, with the same arguments and results.
        key: Its random key; None if it uses none.

    Raises:
        ValueError: If the function does not compute the features of the split.
    """
    signature, program = split.signature, split.program
    signature = Signature(
        function, signature.params, signature.trainable, signature.state, signature.batch, key
    )
    other = SizedProgram(signature, program.examples)
    mixing = other.mark(None)
    wanted, found = value_hashes(program), {text: each for each, text in value_hashes(other).items()}
    missing = [each for each in split.variables if wanted[each] not in found]
    if missing:
        names = ", ".join(sorted(split.features))
        raise ValueError(
            f"the function does not compute {len(missing)} of the features {names}; its frozen part must "
            "equal that of the other function"
        )
    variables = tuple(found[wanted[each]] for each in split.variables)
    return Split(signature, other, Boundary(variables, split.cost.bytes), mixing, float("inf"))


def value_hashes(program: SizedProgram) -> dict[Var, str]:
    """Returns a hash of each frozen variable: of the operations that compute it from the inputs.

    Two programs compute the same value from the same inputs if the hashes are equal.
    """
    hashes: dict[Var, str] = {
        variable: f"{argument}/{path}"
        for argument, variables in program.inputs.items()
        for path, variable in variables.items()
    }
    hashes |= {variable: _constant(value) for variable, value in program.program.constants.items()}
    for equation in program.equations:
        if any(each in program.program.causes for each in equation.outvars):
            continue
        operands = [_literal(each) if is_literal(each) else hashes[each] for each in equation.invars]
        text = re.sub(r"0x[0-9a-f]+", "", as_text(_inputs(equation), equation.outvars, [equation]))
        whole = hashlib.sha256("\n".join([text, *operands]).encode()).hexdigest()
        hashes |= {variable: f"{whole}/{index}" for index, variable in enumerate(equation.outvars)}
    return hashes


def _inputs(equation: Any) -> list[Var]:
    return [*dict.fromkeys(each for each in equation.invars if not is_literal(each))]


def _literal(atom: Any) -> str:
    return f"{atom.val!r} {atom.aval}"


def _constant(value: Any) -> str:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    return hashlib.sha256(array.tobytes()).hexdigest() + f" {array.dtype} {array.shape}"
