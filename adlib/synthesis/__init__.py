"""Simulated anomalies on the images' device: noise masks, texture operations, blending, sources of textures."""

from adlib.synthesis.noise import perlin
from adlib.synthesis.simulator import Simulated, Simulator, blend

__all__ = ["Simulated", "Simulator", "blend", "perlin"]
