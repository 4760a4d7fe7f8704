import pytest

from transfer_jax import Phase, Schedule
from transfer_jax.freezing.adapter_text import join_adapters, parse_adapters
from transfer_jax.freezing.block_groups import group_by_block
from transfer_jax.freezing.selectors import SelectorError
from transfer_jax.models.adapters.adapter import Adapter

BLOCKS = ("embed", "blocks.0", "blocks.1", "norm")
PATHS = (
    "backbone/embed/patch/kernel",
    *(
        f"backbone/blocks.{block}/{layer}/{leaf}"
        for block in (1, 0)
        for layer in ("attn/qkv", "attn/proj", "fc1", "fc2")
        for leaf in ("kernel", "bias")
    ),
    "backbone/norm/norm/scale",
    "head/classifier/kernel",
)


def resolved(text: str) -> Adapter:
    (adapter,) = parse_adapters(text)
    return adapter.resolve(group_by_block(PATHS, BLOCKS))


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("lora", ("blocks.0/attn/qkv", "blocks.1/attn/qkv")),
        ("dora(match('qkv') & blocks('blocks.1'), rank=2)", ("blocks.1/attn/qkv",)),
        ("ia3", ("blocks.0/attn/qkv", "blocks.0/fc2", "blocks.1/attn/qkv", "blocks.1/fc2")),
        ("prompts(tokens=3)", ("blocks.0", "blocks.1")),
        ("parallel('blocks(\"blocks.0\")')", ("blocks.0",)),
    ],
)
def test_layers_of_the_network_in_order(text, layers):
    adapter = resolved(text)
    assert adapter.layers == tuple(f"backbone/{layer}" for layer in layers)
    assert Adapter.from_json(adapter.to_json()) == adapter


def test_the_head_is_not_adapted():
    assert not any("head" in layer for layer in resolved("lora(role('kernel'))").layers)


def test_text_that_is_read_again_is_the_same():
    text = "lora(match('qkv'), rank=2) + prompts(tokens=5, deep=False, name='few')"
    found = parse_adapters(text)
    assert [each.name for each in found] == ["lora", "few"]
    assert join_adapters(parse_adapters(join_adapters(found))) == join_adapters(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lorra(head)", "invalid adapter 'lorra.*use lora"),
        ("lora(head, 4)", "invalid adapter"),
        ("lora(head, rank=0)", "lora: rank must be a whole number of at least 1, got 0"),
        ("lora(head, alpha=-1)", "lora: alpha must be a number above 0"),
        ("lora(head, parts='x')", "lora: parts must be one of '', 'q'"),
        ("lora(head, ranks=4)", "lora has no setting 'ranks'; its settings are rank, alpha, parts, name"),
        ("prompts(deep=2)", "prompts: deep must be True or False"),
        ("lora(head, name='a/b')", "lora: name must be letters"),
        ("lora(heed)", "invalid selector"),
        ("lora + lora", "adapters need different names, got lora, lora"),
    ],
)
def test_invalid_text_is_explained(text, message):
    with pytest.raises(SelectorError, match=message):
        parse_adapters(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lora(role('bias'))", "selects no kernel .*, only .*bias"),
        ("parallel(match('fc1'))", "selects no pair of the kernels fc1 and fc2"),
        ("prompts(match('fc1'))", "selects no attention of a block"),
    ],
)
def test_layers_that_cannot_be_adapted_are_named(text, message):
    with pytest.raises(SelectorError, match=message):
        resolved(text)


def phase(name: str, **fields) -> Phase:
    return Phase(name=name, train="head", epochs=1, learning_rate=0.1, **fields)


def test_the_former_fields_are_an_adapter():
    found = phase("a", lora="match('qkv')", lora_rank=2, lora_alpha=3.0)
    assert found == phase("a", adapter="lora(match('qkv'), rank=2, alpha=3.0)")
    with pytest.raises(ValueError, match="lora and adapter cannot be combined"):
        phase("a", lora="head", adapter="ia3")


def test_adapters_stay_in_later_phases():
    schedule = Schedule(
        (phase("a"), phase("b", adapter="lora"), phase("c", adapter="ia3 + lora"), phase("d"))
    )
    names = [[each.name for each in schedule.adapters(index)] for index in range(4)]
    assert names == [[], ["lora"], ["lora", "ia3"], ["lora", "ia3"]]
    assert Schedule.from_json(schedule.to_json()) == schedule
    with pytest.raises(ValueError, match=r"two adapters have the name 'lora': .*rank=4.* and .*rank=2"):
        Schedule((phase("a", adapter="lora"), phase("b", adapter="lora(rank=2)")))
