"""The model card of an exported model: its run, its loss, how to use it, and its recipe."""

from collections.abc import Mapping
from pathlib import Path

from headway.model import ARCHITECTURES
from headway.recipe import Recipe, to_yaml

USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")
model = AutoModelForCausalLM.from_pretrained("DIRECTORY")
inputs = tokenizer("Once upon a time", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))
```"""


def card(recipe: Recipe, vocabulary: int, facts: Mapping[str, str | int | float], directory: Path) -> str:
    """README.md of a Hugging Face directory: a table of `facts` in their order, usage, and the whole recipe."""
    parameters = ARCHITECTURES[recipe.model.kind].parameter_count(recipe.model, vocabulary)
    rows = {"parameters": parameters, **facts}
    table = "\n".join(f"| {_cell(fact)} | {_cell(value)} |" for fact, value in rows.items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [headway]
---
# {recipe.name}

A base language model (it continues text; it was not taught to follow instructions), pretrained with Headway.

| | |
|---|---|
{table}

## Use
{USAGE.replace("DIRECTORY", directory.name)}

`vllm serve {directory.name}` serves it as it is.

## Recipe
```yaml
{to_yaml(recipe).rstrip()}
```
"""


def _cell(value: str | int | float) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
