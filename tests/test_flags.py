import pytest

from analyzer.cli.flags import flags


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("use `provider` cpu", "use --provider cpu"),
        ("`analyzer inspect` with `write_card` writes one", "`analyzer inspect` with --write-card writes one"),
        ("`min_confidence` and `max_regression`", "--min-confidence and --max-regression"),
        ("`size` is no `tensor`", "--size is no `tensor`"),
        ("layers, `Provider`, `min-confidence`, `--layers`", "layers, `Provider`, `min-confidence`, `--layers`"),
        ("", ""),
    ],
)
def test_parameters_that_are_options_become_flags(text, shown):
    assert flags(text) == shown
