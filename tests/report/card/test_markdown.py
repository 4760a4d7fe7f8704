from transfer_jax.report.card.markdown import block, code, plain, table


def test_names_have_no_meaning_in_markdown():
    assert plain("a|b*<i>\n[x](y)") == r"a\|b\*\<i\>\\n\[x\](y)"
    assert code("a`b") == "`` a`b ``"
    assert block("a\n```\nb", "bash").count("```") == 2


def test_numbers_are_aligned_to_the_right():
    text = table(("name", "value", "note"), [["a", "1.5%", "x"], ["b", "-2 to 3", "1 of x"]])
    assert text.splitlines()[1] == "| --- | ---: | --- |"
