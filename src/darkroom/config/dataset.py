"""What a dataset is: its source and how it is downloaded, filtered and recaptioned."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, model_validator

from darkroom.config.base import Section


class DemoSource(Section):
    """The demo world: generated pictures behind a misbehaving web server on 127.0.0.1."""

    kind: Literal["demo"]
    num_scenes: int = Field(ge=1, description="captioned pictures of coloured shapes")
    num_digits: int = Field(ge=0, description="handwritten digits as text rendering")
    num_photos: int = Field(ge=0, description="crops of the photographs in scikit-image and -learn")
    seed: int = Field(0, ge=0, description="seed of everything the world draws")


class ListSource(Section):
    """A Parquet list of URLs with metadata, as LAION publishes them."""

    kind: Literal["list"]
    path: str = Field(description="Parquet file with one row a URL, relative to the project's root")
    url_column: str = Field("URL", description="column that holds the URL")
    caption_column: str = Field("TEXT", description="column that holds the alt-text")


class PicturesSource(Section):
    """A folder of pictures, each with its caption in a .txt file of the same name."""

    kind: Literal["pictures"]
    folder: str = Field(
        description="relative to the project's root, or starting with a variable of the environment: $NAME/..."
    )


class DreamBoothSource(Section):
    """Pictures of one subject with one prompt, and of its class with another (DreamBooth)."""

    kind: Literal["dreambooth"]
    instance_folder: str = Field(description="pictures of the subject; as `folder` of `pictures`")
    instance_prompt: str = Field(min_length=1, description="their caption, with a word for the subject")
    class_folder: str | None = Field(None, description="pictures of its class, for prior preservation")
    class_prompt: str | None = Field(None, min_length=1, description="their caption, without that word")

    @model_validator(mode="after")
    def _both_or_none(self) -> "DreamBoothSource":
        if (self.class_folder is None) != (self.class_prompt is None):
            missing = "class_prompt" if self.class_prompt is None else "class_folder"
            raise ValueError(f"{missing} is missing; give class_folder and class_prompt together, or neither")
        return self


class ClassesSource(Section):
    """A folder for each class, whose pictures have the class's prompt."""

    kind: Literal["classes"]
    folder: str = Field(description="holds a folder for each class; as `folder` of `pictures`")
    prompts: str | None = Field(
        None, description="JSON file: class's folder -> prompt; null: the folder's name, _ being a space"
    )


AnySource = DemoSource | ListSource | PicturesSource | DreamBoothSource | ClassesSource
Source = Annotated[AnySource, Field(discriminator="kind")]
SOURCE_KINDS = ("demo", "list", "pictures", "dreambooth", "classes")


def parse_source(values: dict[str, Any]) -> AnySource:
    """A source from its plain values."""
    source: AnySource = TypeAdapter(Source).validate_python(values)
    return source


class Download(Section):
    """Fetching and decoding, with every bound."""

    allow_networks: tuple[str, ...] = Field(
        (), description="networks (CIDR) allowed besides the public internet, e.g. 127.0.0.0/8"
    )
    num_threads: int = Field(32, ge=1, description="concurrent fetches of one part")
    num_retries: int = Field(1, ge=0, description="more tries after a transient failure")
    timeout_s: float = Field(10.0, gt=0, description="longest silence of a server, seconds")
    total_timeout_s: float = Field(60.0, gt=0, description="longest fetch of one URL, seconds")
    max_bytes: int = Field(50_000_000, ge=1, description="longest response body, bytes")
    max_pixels: int = Field(40_000_000, ge=1, description="width x height allowed before decoding")
    max_side_px: int = Field(1024, ge=16, description="pictures with a longer side are reduced")
    jpeg_quality: int = Field(95, ge=1, le=100, description="quality of the stored JPEG")
    disallowed_directives: tuple[str, ...] = Field(
        ("noai", "noimageai", "noindex", "noimageindex"),
        description="X-Robots-Tag directives that a picture is refused for",
    )


class Filter(Section):
    """Thresholds, applied late: changing one scores nothing again."""

    max_pwatermark: float | None = Field(0.5, ge=0, le=1, description="watermark probability kept at most")
    max_punsafe: float | None = Field(0.5, ge=0, le=1, description="unsafe probability kept at most")
    min_side_px: int = Field(64, ge=1, description="shortest side kept, pixels")
    max_aspect_ratio: float = Field(3.0, ge=1, description="longest side / shortest side kept")
    drop_duplicates: bool = Field(True, description="keep only the first of byte-identical pictures")


class Recaption(Section):
    """A LLaVA-family captioner and its decoding."""

    captioner: str = Field(description="name of a captioner in config/components.yaml")
    long_prompt: str = Field(description="request for the long caption")
    short_prompt: str = Field(description="request for the short caption")
    max_new_tokens: int = Field(96, ge=1, description="longest caption, tokens; longer is truncated")
    batch_size: int = Field(64, ge=1, description="pictures a forward pass")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "bfloat16", description="weights and activations"
    )
    strip_prefixes: tuple[str, ...] = Field(
        (), description="openings removed from the start of a caption, e.g. 'The image shows '"
    )


class Dataset(Section):
    """A dataset: `config/datasets/NAME.yaml`."""

    description: str = Field(description="one sentence for the report")
    source: Source
    rows_per_part: int = Field(10_000, ge=1, description="rows of the list in one part, the unit of work")
    download: Download = Download()
    filter: Filter = Filter()
    recaption: Recaption | None = Field(
        description="null: none; long and short captions are then the original ones"
    )
