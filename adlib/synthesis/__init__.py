"""Simulated anomalies on the images' device: noise masks, texture operations, blending, sources of textures."""

from adlib.synthesis.noise import perlin
from adlib.synthesis.simulator import Simulated, Simulator, blend
from adlib.synthesis.texture_bank import TextureSource, texture_source

__all__ = ["Simulated", "Simulator", "TextureSource", "blend", "perlin", "texture_source"]
