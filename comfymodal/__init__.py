"""comfymodal: ComfyUI renders, LoRA training and model sync on rented GPUs, from one YAML project file."""

__version__ = "0.1.0"
