import pytest

from pipeline.display import texts


def test_numbers_of_a_terminal_have_the_minus_of_ascii_so_that_a_log_can_be_searched():
    values = (-12.3456, -1234567.8, 0.00012345, float("nan"), None)
    assert [texts.number(value) for value in values] == [
        "-12.35", "-1,234,568", "0.0001234", "nan", "-"
    ]  # fmt: skip


def test_a_count_agrees_with_its_noun():
    counts = [texts.counted(1, "device"), texts.counted(2, "process"), texts.counted(1, "process")]
    assert counts == ["1 device", "2 processes", "1 process"]
    assert texts.counted(1234, "device") == "1,234 devices"


def test_a_name_cannot_steer_a_terminal():
    assert texts.visible("a\x1b]0;b\x07\r\udcff é") == r"a\x1b]0;b\x07\r\udcff é"
    assert texts.visible("a\nb\tc") == "a\nb\tc"


def test_figures_come_in_the_order_of_their_table_with_loss_and_elbo_first():
    names = ["own", "active_units", "bits_per_dim", "elbo", "kl_loss", "loss"]
    expected = ["loss", "elbo", "kl_loss", "bits_per_dim", "active_units", "own"]
    assert texts.ordered(names) == expected


@pytest.mark.parametrize("value", ["a|b", "a\nb", "`a`", "**a**", "<b>", "[a](b)", "a\\", 7, None])
def test_a_value_stays_in_its_cell_of_a_table(value):
    import markdown

    row = f"| {texts.cell(value)} | next |"
    page = markdown.markdown(f"| x | y |\n|---|---|\n{row}", extensions=["tables"])
    assert page.count("<td>") == 2
    assert not any(tag in page for tag in ("<b>", "<a ", "<code>", "<strong>"))
