"""The JSON schema of the configuration, generated from the pydantic models."""

import json
from typing import Any

from pydantic import BaseModel

from darkroom.components.base import Components
from darkroom.config.autoencoder import Autoencoder
from darkroom.config.dataset import Dataset
from darkroom.config.run import Run


def schema() -> dict[str, Any]:
    """One JSON schema (2020-12) with a definition for each kind of configuration file."""
    models: dict[str, type[BaseModel]] = {
        **{"run": Run, "dataset": Dataset},
        **{"autoencoder": Autoencoder, "components": Components},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "darkroom configuration: config/runs/*.yaml, config/datasets/*.yaml,"
        " config/autoencoders/*.yaml, config/components.yaml",
        "properties": {name: model.model_json_schema() for name, model in models.items()},
    }


def schema_text() -> str:
    """The text of `config/schema.json`."""
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"
