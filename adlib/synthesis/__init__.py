"""Simulated anomalies on the images' device: noise masks, texture operations, blending, sources of textures."""

from adlib.synthesis.cut_paste import cut_paste
from adlib.synthesis.noise import perlin
from adlib.synthesis.simulator import Simulated, Simulator, blend
from adlib.synthesis.texture_bank import TextureSource, texture_source

__all__ = ["Simulated", "Simulator", "TextureSource", "blend", "cut_paste", "perlin", "texture_source"]
