from pipeline.display import pages


def test_numbers_have_four_digits_or_all_before_the_point():
    values = (0.123456, -12.3456, 123456.78, 20.0, float("nan"), None)
    texts = ["0.1235", "−12.35", "123,456.8", "20", "–", "–"]
    assert [pages.number(value) for value in values] == texts
