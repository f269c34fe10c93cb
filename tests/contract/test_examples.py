"""The command lines of help, README and documents: their words exist, and their recipes are valid.

`tests/integration/test_examples.py` runs them.
"""

from pathlib import Path

import pytest
from tests.examples import ROOT, Example, commands, help_examples, page_examples

from headway import recipe as recipes
from headway.launch.sweep import sweep_members

EXAMPLES = sorted({str(each): each for each in (*help_examples(), *page_examples())}.items())
WITH_RECIPE = ("train", "submit", "job", "data build")
COMMANDS = commands()


def command_of(example: Example) -> str:
    """The command, of one word or two."""
    return " ".join(example.words[:2]) if " ".join(example.words[:2]) in COMMANDS else example.words[0]


def parameters(example: Example) -> dict[str, object]:
    """The parameters by name, as the command line parses them."""
    name = command_of(example)
    words = list(example.words[len(name.split()) :])
    values: dict[str, object] = COMMANDS[name].make_context(name, words).params
    return values


def test_help_and_documents_have_examples() -> None:
    """At least one in the help of each command, and in the documents of most."""
    assert {example.place for example in help_examples()} == {f"headway {name} --help" for name in COMMANDS}
    assert len({command_of(example) for example in page_examples()}) > len(COMMANDS) / 2


@pytest.mark.parametrize("example", [example for _, example in EXAMPLES], ids=str)
def test_an_example_is_understood(example: Example) -> None:
    """Its command, arguments and options exist."""
    assert parameters(example)


@pytest.mark.parametrize("example", [example for _, example in EXAMPLES if command_of(example) in WITH_RECIPE], ids=str)
def test_the_overrides_of_an_example_are_valid(example: Example) -> None:
    """For the recipe that it names, or the quick start's where that is the reader's own."""
    values = parameters(example)
    path = ROOT / "jobs/recipes" / Path(str(values["recipe"])).name
    document = recipes.read(path if path.exists() else ROOT / "jobs/recipes/quickstart.yaml")
    overrides, array = (values.get(name) or () for name in ("overrides", "array"))
    assert isinstance(overrides, list | tuple)
    assert isinstance(array, list | tuple)
    assert sweep_members(document, overrides, array, None)
