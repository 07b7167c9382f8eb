//! Source `comfyui`: the prompts of a ComfyUI server, read only.
