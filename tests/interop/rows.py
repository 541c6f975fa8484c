"""What each tool makes of each form, as `make test-interop` finds it and docs/interop.md says it."""

from dataclasses import dataclass

from environments import TOOLS

SAME, OTHER, REFUSED = "the same picture", "**another picture**", "an error"
UNETS = ("sd1", "sd2", "sdxl")
NAMES = {
    "sd1": "SD 1", "sd2": "SD 2", "sdxl": "SDXL", "sd3": "SD 3", "flux": "FLUX.1", "mmdit": "mmdit",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table.

    form: the file. method: of the adapters in it, or in what it was made from. tolerance: largest difference
    of a channel of a pixel, in levels of 255. measured: the largest that was found. note: what a user has to know.
    """

    tool: str
    form: str
    method: str
    kinds: tuple[str, ...]
    outcome: str = SAME
    tolerance: float = 0.01
    measured: float = 0.0
    note: str = ""

    @property
    def line(self) -> str:
        kinds = ", ".join(NAMES[kind] for kind in self.kinds)
        found = f"{self.measured:.4f}, of {self.tolerance:g} allowed" if self.outcome == SAME else ""
        told = f"`{self.form}`" + (f", {self.method}" if self.method != "merged" else "")
        return f"| {TOOLS[self.tool].title} | {told} | {kinds} | {self.outcome} | {found} | {self.note} |"


def _of_diffusers(tool: str, own_lora: str, note: str, lokr: str) -> tuple[Row, ...]:
    every = tuple(NAMES)
    dora = "see [models.md](models.md#one-file-for-comfyui-and-a1111)"
    t5 = "SD 3: `text_encoder_3.eval()` first"
    note_of_lokr = "" if lokr == REFUSED else "by the network's `load_lora_adapter`"
    alone = tuple(kind for kind in every if kind != "mmdit")
    own = [
        Row(tool, "diffusers", method, kinds, own_lora, measured=0.0005, note=note)
        for method, kinds in (("lora", every), ("dora", every), ("patterns", alone))
    ]
    return (
        Row(tool, "folder", "merged", every, measured=0.0004),
        *own,
        Row(tool, "diffusers", "lokr", every, lokr, measured=0.0006, note=note_of_lokr),
        Row(
            tool,
            "single_file",
            "merged",
            (*UNETS, "sd3"),
            measured=0.0004,
            note=t5,
        ),
        Row(
            tool,
            "single_file",
            "merged",
            ("flux",),
            REFUSED,
            note="a tiny one; its reader has the width 3072",
        ),
        Row(tool, "gguf", "merged", (*UNETS, "sd3"), measured=0.0004),
        Row(tool, "gguf", "merged", ("flux",), REFUSED, note="a tiny one; its reader has the width 3072"),
        Row(tool, "lora_kohya", "lora", UNETS, measured=0.0004),
        Row(tool, "lora_kohya", "lora", ("sd3",), OTHER, note="it takes no notice of the file"),
        Row(tool, "lora_kohya", "lora", ("flux",), REFUSED, note="a tiny one; its reader has the width 3072"),
        Row(tool, "lora_kohya", "patterns", UNETS, OTHER, note="it loses a layer's own alpha"),
        Row(
            tool,
            "lora_kohya",
            "dora",
            UNETS,
            OTHER,
            note=dora,
        ),
        Row(tool, "lora_kohya", "lokr", UNETS, REFUSED),
    )


ROWS = (
    *_of_diffusers("diffusers-older", OTHER, "it does not read alpha: give it `lora_kohya`", REFUSED),
    *_of_diffusers("diffusers-newest", SAME, "", SAME),
)
