"""Names of the files of adapters in an exported folder; to know them takes no diffusers."""

LORA_FILE = "pytorch_lora_weights.safetensors"
DORA_FILE = "dora_norm_ratios.safetensors"
