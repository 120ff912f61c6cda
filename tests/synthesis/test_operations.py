"""The ten texture operations against imgaug's golden vectors, PIL and hand computation."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from adlib.synthesis import operations

EXACT, MEAN = "max", "mean"


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    """A part of a real picture in which no channel fills 0..255: uint8 [1,3,60,50]."""
    import skimage

    with Image.open(f"{skimage.__path__[0]}/data/coffee.png") as image:
        part = np.asarray(image.convert("RGB"))[100:160, 150:200] // 2 + 40
    return torch.from_numpy(part).permute(2, 0, 1)[None].contiguous()


def to_pil(texture: torch.Tensor) -> Image.Image:
    return Image.fromarray(texture[0].permute(1, 2, 0).numpy())


def levels(image) -> np.ndarray:
    """[H,W,3] as integers that can be subtracted."""
    array = image[0].permute(1, 2, 0).numpy() if torch.is_tensor(image) else np.asarray(image)
    return array.astype(int)


def one(value) -> torch.Tensor:
    return torch.as_tensor(np.atleast_1d(value))


def golden_cases(vectors):
    """(operation name, output of imgaug, ours, statistic, tolerance) with the tolerances of the specification, 11."""
    x = torch.from_numpy(vectors["aug_in"]).permute(2, 0, 1)[None].contiguous()
    get = lambda name: (vectors[f"aug_{name}_param"], vectors[f"aug_{name}_out"])
    exponent, out = get("gamma")
    yield "gamma", out, operations.gamma(x, one(exponent)[None]), EXACT, 0
    threshold, out = get("solarize")
    yield "solarize", out, operations.solarize(x, one(threshold)), EXACT, 0
    yield "equalize", vectors["aug_equalize_out"], operations.equalize(x), EXACT, 0
    degrees, out = get("rotate")
    yield "rotate", out, operations.rotate_texture(x, one(degrees)), MEAN, 0.5
    (factor, summand), outs = get("bright")
    for space, out in zip(vectors["aug_bright_space"], outs, strict=True):
        number = one(operations.SPACES.index(space))
        ours = operations.brightness(x, one(factor), one(summand), number, one(True))
        yield f"brightness {space}", out, ours, MEAN, 1.5
    for name, call, statistic, tolerance in (
        ("sharp", operations.sharpen, EXACT, 1),
        ("posterize", operations.posterize, EXACT, 0),
        ("autocontrast", operations.autocontrast, EXACT, 1),
        ("huesat", operations.hue_and_saturation, MEAN, 1),
    ):
        for parameters, out in zip(*get(name), strict=True):
            yield name, out, call(x, *(one(p) for p in np.atleast_1d(parameters))), statistic, tolerance


def test_operations_equal_those_of_the_authors(golden):
    """imgaug 0.4 on one picture: exact, 1 level, or a mean deviation where OpenCV rounds to 8 bits between steps."""
    for name, expected, ours, statistic, tolerance in golden_cases(golden("draem")):
        deviation = np.abs(levels(ours) - expected.astype(int))
        assert getattr(deviation, statistic)() <= tolerance, name


@pytest.mark.parametrize("cutoff", [0, 3, 20])
def test_autocontrast_is_pils(photograph, cutoff):
    """PIL takes a cutoff in percent for both ends; the same histogram gives the same table, so every level is equal."""
    expected = levels(ImageOps.autocontrast(to_pil(photograph), cutoff=cutoff))
    np.testing.assert_array_equal(levels(operations.autocontrast(photograph, one(cutoff))), expected)


def test_autocontrast_is_pils_for_all_pairs_of_low_and_high():
    """Channel k holds every level from its lowest to its highest one: all 256 * 255 / 2 = 32,640 pairs.

    The oracle is PIL's line `int(ix * scale + offset)` in float64, and PIL itself for every 50th picture.
    """
    low, high = (edge[:, None] for edge in np.triu_indices(256, 1))
    channels = np.arange(256).clip(low, high)
    scale = 255.0 / (high - low)
    pils_formula = (channels * scale + -low * scale).astype(int).clip(0, 255).reshape(10_880, 3, 16, 16)
    textures = torch.from_numpy(channels.astype(np.uint8).reshape(10_880, 3, 16, 16))
    ours = torch.cat([operations.autocontrast(part, torch.zeros(len(part))) for part in textures.split(1360)])
    np.testing.assert_array_equal(ours.numpy(), pils_formula)
    for texture, result in zip(textures[::50], ours[::50], strict=True):
        np.testing.assert_array_equal(levels(result[None]), levels(ImageOps.autocontrast(to_pil(texture[None]))))


def test_equalize_is_pils_also_on_one_level(photograph):
    np.testing.assert_array_equal(
        levels(operations.equalize(photograph)), levels(ImageOps.equalize(to_pil(photograph)))
    )
    flat = torch.full((1, 3, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(operations.equalize(flat), flat)
    assert torch.equal(operations.autocontrast(flat, one(0)), flat)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.9])
def test_sharpness_is_pils_within_one_level(photograph, factor):
    """Both round the blurred picture to 8 bits; PIL cuts the blend in single precision, hence one level."""
    expected = levels(ImageEnhance.Sharpness(to_pil(photograph)).enhance(factor))
    assert np.abs(levels(operations.sharpen(photograph, one(factor))) - expected).max() <= 1


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_is_pils(photograph, bits):
    expected = levels(ImageOps.posterize(to_pil(photograph), bits))
    np.testing.assert_array_equal(levels(operations.posterize(photograph, one(bits))), expected)


def test_solarize_and_invert_are_pils(photograph):
    """The threshold 90.7 counts as 90; 256 lies above every level."""
    expected = levels(ImageOps.solarize(to_pil(photograph), 90))
    np.testing.assert_array_equal(levels(operations.solarize(photograph, one(90.7))), expected)
    assert torch.equal(operations.solarize(photograph, one(256.0)), photograph)
    np.testing.assert_array_equal(levels(operations.invert(photograph)), levels(ImageOps.invert(to_pil(photograph))))


def test_exponent_1_leaves_every_level():
    """255 (v/255) is v; a product that comes out below v would lose a level in floor."""
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    assert torch.equal(operations.gamma(ramp, torch.ones(1, 3)), ramp)


@pytest.mark.parametrize("space", range(6), ids=operations.SPACES)
def test_brightness_unchanged_leaves_the_picture(photograph, space):
    """Factor 1 and summand 0: only rounding of the brightness channel remains, one or two levels."""
    same = operations.brightness(photograph, one(1.0), one(0.0), one(space), one(True))
    assert np.abs(levels(same) - levels(photograph)).max() <= 2


@pytest.mark.parametrize("space", ["HSV", "HLS"])
def test_brightness_keeps_hue_and_saturation_like_kornia(photograph, space):
    """Our closed forms against kornia's way through the colour space.

    A brightness of half a level may round to either side in kornia, which the factor makes up to 2 levels; our result
    is rounded once more.
    """
    from kornia import color

    def changed(name, channel):
        converted = getattr(color, f"rgb_to_{name}")(photograph.float() / 255)
        level = (converted[:, channel] * 255).round() * 1.15
        converted[:, channel] = (level.round() - 20).clamp(0, 255) / 255
        return getattr(color, f"{name}_to_rgb")(converted) * 255

    expected = changed("hsv", 2) if space == "HSV" else changed("hls", 1)
    number = one(operations.SPACES.index(space))
    ours = operations.brightness(photograph, one(1.15), one(-20), number, one(True))
    assert (ours.float() - expected).abs().max() <= 3
    assert (ours.float() - expected).abs().mean() <= 0.5


def test_brightness_order_matters_by_hand():
    """Grey 100 in YUV: 100 x 1.2 - 20 = 100, but (100 - 20) x 1.2 = 96."""
    grey = torch.full((2, 3, 2, 2), 100, dtype=torch.uint8)
    number = torch.full((2,), operations.SPACES.index("YUV"))
    changed = operations.brightness(grey, one([1.2, 1.2]), one([-20, -20]), number, one([True, False]))
    assert changed[0].unique().tolist() == [100]
    assert changed[1].unique().tolist() == [96]


def test_hue_shift_is_kornias(photograph):
    """kornia's own way back to RGB; 40 -> 2 trunc(28.2) = 56 degrees, -30/255 of saturation; rounding: one level."""
    from kornia.color import hsv_to_rgb, rgb_to_hsv

    hsv = rgb_to_hsv(photograph.float() / 255)
    hsv[:, 0] += np.deg2rad(56)
    hsv[:, 1] = (hsv[:, 1] - 30 / 255).clamp(0, 1)
    ours = operations.hue_and_saturation(photograph, one(40), one(-30))
    assert (ours.float() - hsv_to_rgb(hsv) * 255).abs().max() <= 0.51


def test_a_quarter_turn_is_clockwise_and_exact():
    """About the centre of the pixel grid a turn by 90 degrees maps pixels onto pixels: torch.rot90 the other way."""
    images = torch.rand(1, 2, 6, 6)
    turned = operations.rotate(images, one(90.0))
    torch.testing.assert_close(turned, torch.rot90(images, -1, (2, 3)), atol=1e-5, rtol=0)


def test_corners_become_black(photograph):
    turned = operations.rotate_texture(photograph, one(45.0))
    assert turned[..., 0, 0].max() == 0
    assert photograph.min() > 0


def test_a_group_equals_its_samples_one_by_one(photograph):
    """Each operation has a parameter per sample, so what stands beside a sample in the batch does not matter."""
    noise = torch.randint(0, 256, (4, *photograph.shape[1:]), dtype=torch.uint8, generator=torch.manual_seed(0))
    textures = torch.cat([photograph, noise])
    uniform = torch.rand(5, operations.DRAWS, generator=torch.manual_seed(1))
    for name, operation in operations.OPERATIONS.items():
        together = operation.apply(textures, *operation.parameters(uniform))
        for i in range(5):
            alone = operation.apply(textures[i : i + 1], *operation.parameters(uniform[i : i + 1]))
            assert torch.equal(together[i : i + 1], alone), name


def test_vary_applies_each_samples_own_operations_in_its_own_order(photograph):
    """By hand: cutting to 3 bits and inverting do not commute, so the order shows."""
    names = operations.SETS["code"]
    posterize, invert = names.index("posterize"), names.index("invert")
    uniform = torch.full((2, len(names), operations.DRAWS), 0.3)  # posterize: 1 + floor(8 x 0.3) = 3 bits
    both = photograph.repeat(2, 1, 1, 1)
    varied = operations.vary(both, torch.tensor([[posterize, invert], [invert, posterize]]), uniform, names)
    assert torch.equal(varied[:1], 255 - (photograph & 0b11100000))
    assert torch.equal(varied[1:], (255 - photograph) & 0b11100000)


def test_each_operation_has_numbers_of_its_own(photograph):
    """posterize draws 0.3 (3 bits) whatever stands in the other rows; hue and saturation take two columns."""
    names = operations.SETS["code"]
    number, uniform = names.index("posterize"), torch.full((1, len(names), operations.DRAWS), 0.9)
    uniform[:, number] = 0.3
    varied = operations.vary(photograph, torch.tensor([[number]]), uniform, names)
    assert torch.equal(varied, photograph & 0b11100000)
    hue, saturation = operations.OPERATIONS["hue and saturation"].parameters(torch.tensor([[0.0, 0.5, 0.9, 0.9]]))
    assert (hue.item(), saturation.item()) == (-50, 0)


def test_parameters_stay_in_the_authors_ranges():
    """Uniform numbers at both ends: gamma 0.5..2, brightness 0.8..1.2 and -30..30, bits 1..8, cutoff 0..20, ..."""
    ends = torch.tensor([0.0, 1 - 2**-24])[:, None].expand(2, operations.DRAWS)
    found = {name: [p.float() for p in o.parameters(ends)] for name, o in operations.OPERATIONS.items()}
    expected = {
        "gamma": [(0.5, 2)],
        "brightness": [(0.8, 1.2), (-30, 30), (0, 5), (0, 1)],
        "sharpness": [(0, 2)],
        "hue and saturation": [(-50, 50), (-50, 50)],
        "solarize": [(32, 256)],
        "posterize": [(1, 8)],
        "invert": [],
        "autocontrast": [(0, 20)],
        "equalize": [],
        "rotation": [(-45, 45)],
    }
    for name, ranges in expected.items():
        assert len(found[name]) == len(ranges), name
        for values, (low, high) in zip(found[name], ranges, strict=True):
            assert (values.min().item(), values.max().item()) == pytest.approx((low, high), abs=1e-5), name


def test_the_papers_set_has_seven():
    """Spec section 5: gamma, inversion and rotation are the code's."""
    assert len(operations.SETS["code"]) == 10
    assert set(operations.SETS["code"]) - set(operations.SETS["paper"]) == {"gamma", "invert", "rotation"}
