"""What frames every page: minutes, the box of terms, folded text, what to remember."""

import pandas as pd

from adlib.common import paths
from adlib.evaluation import ALPHA
from adlib.metrics import average_precision, image_auroc
from adlib.metrics.intervals import CEILING
from adlib.reports import printing

WORDS_A_MINUTE = 200  # of reading
TIMES = paths.PROJECT / "results" / "reference" / "times.csv"  # written by `adlib evidence`


def times(notebook: str) -> str:
    """Markdown, one line: minutes to read and to run a notebook, from the executed ones in results/reference.

    notebook: its name without ".ipynb"; of its executed variants (NAME-bottle, NAME-screw) all are counted.
    """
    table = pd.read_csv(TIMES) if TIMES.is_file() else pd.DataFrame({"notebook": []})
    rows = table[[name == notebook or name.startswith(f"{notebook}-") for name in table.notebook]]
    if not len(rows):
        return "How long this page takes was not measured; `python -m adlib evidence` measures it."
    read = _minutes(60 * rows.words / WORDS_A_MINUTE)
    trained = rows.training_seconds > 0
    before = f", after {_minutes(rows.training_seconds[trained])} of training" if trained.any() else ""
    cores = rows.cores.max()
    where = f" (measured on {cores:.0f} core{'s' if cores > 1 else ''})"
    return f"**{read} to read, {_minutes(rows.seconds)} to run{before}**{where}."


def _minutes(seconds: pd.Series) -> str:
    low, high = (max(1, round(value / 60)) for value in (seconds.min(), seconds.max()))
    return f"{low} min" if low == high else f"{low} to {high} min"


def terms() -> str:
    """Markdown: the words that every page uses, AUROC and AP on an example of four images."""
    labels, scores = [0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9]
    auroc, ap = (printing.number(metric(labels, scores)) for metric in (image_auroc, average_precision))
    large, small = 990, 10  # pixels of the example for AUPRO
    return "\n".join(
        [
            "- **AUROC** (area under the receiver operating characteristic): the chance that an anomalous image scores "
            f"higher than a normal one. Example: normal images score {scores[0]} and {scores[1]}, anomalous ones "
            f"{scores[2]} and {scores[3]}. Of the four pairs the anomalous image wins three: {auroc} %. Guessing gives "
            "50 %. *Image AUROC* compares images, *pixel AUROC* compares the pixels of the maps.",
            "- **AP** (average precision): sort by score, highest first. At each anomalous image, note which share of "
            f"the images so far is anomalous; average these shares. In the example: 1 of 1, then 2 of 3: {ap} %. "
            "Guessing gives the share of anomalous images. For pixels this is small, so *pixel AP* is a strict number.",
            "- **AUPRO** (area under the per-region-overlap curve): each connected defect counts once, whatever its "
            f"size. Example: a map marks all of a stain of {large} pixels and none of a scratch of {small}. It finds "
            f"{100 * large / (large + small):.0f} % of the defective pixels, but the overlap is 100 % for one region "
            "and 0 % for the other: 50 %. The area runs over false positive rates up to 30 % and is divided by 0.3.",
            "- **Oracle**: a number that used the test labels, say to choose the best epoch. It shows what is "
            "possible. Nobody has test labels in use, so no oracle is judged here.",
            "- **Floor**: what needs no model: the image AUROC from ranking images by mean brightness alone, in the "
            "better direction, on pages 06 and 07 also by the distance to the mean training picture. A score near a "
            "floor does not show that a defect was seen.",
            "- **Threshold**: the score above which an image is called anomalous. It comes from normal images that "
            f"the training did not use. Its *level* is the share of new normal images it may flag, if they look like "
            f"those; we ask for at most {100 * ALPHA:.0f} %.",
            "- **Interval**: 95 %, over test images. We draw the test images anew many times, with replacement, and "
            "keep the middle 95 % of the results (*bootstrap*). Near 100 % that is too narrow: of a perfect ranking "
            f"every redraw is perfect. From an AUROC of {100 * CEILING:.0f} % on we therefore take a *score interval*: "
            "all true values from which a result as far off as ours would come by chance in at least 5 % of such test "
            "sets. Neither contains the luck of training.",
            "- **Seed**: the number from which training draws at random. Several seeds show the luck of training.",
            "- **Verdict** on a published number: *reproduced* (it lies in our interval); *within noise* (outside, but "
            "within two standard deviations of our seeds); *not reproduced*; *not comparable* (our setting or data "
            "differ, and the text says how); *not run*.",
        ]
    )


def folded(summary: str, text: str) -> str:
    """Markdown: text behind a line that opens on a click."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def remember(points: list[str]) -> str:
    """Markdown: a numbered list of what to remember."""
    return "\n".join(f"{number}. {point}" for number, point in enumerate(points, 1))
