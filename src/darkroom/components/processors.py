"""What image processors of transformers do to pictures."""

import json
from typing import Any


def processor_options(processor: Any) -> dict[str, Any]:
    """The options that a processor has, by name: sizes, resampling, mean and more, as plain values."""
    options = json.loads(processor.to_json_string())
    return {name: value for name, value in sorted(options.items()) if value is not None}
