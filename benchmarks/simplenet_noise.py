"""Which noise SimpleNet takes on a data set, chosen by the training loss alone; test numbers only after the choice.

    python benchmarks/simplenet_noise.py RESULTS    # runs of one setting that differ in noise_relative and seed only

Rule, written down before the first of these runs had finished (the rule of batch/reference.yml): the noise is the
smallest sigma whose *training* loss of the last epoch, the mean over the seeds, is below 0.1. sigma is noise_relative
times the mean deviation of the training features. Where no sigma meets the rule, none is chosen.

The rule looks at normal training images only. Test numbers stand below the choice and play no part in it.
"""

import argparse
from pathlib import Path

import pandas as pd

from adlib import runs
from adlib.common import paths
from adlib.common.errors import UserError

LIMIT = 0.1  # of the training loss; see the rule above
SHOWN = ("image_auroc", "image_ap", "pixel_auroc", "aupro@0.3")
OUT = paths.PROJECT / "results" / "reference"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder with the finished runs")
    parser.add_argument("--out", type=Path, default=OUT, help="folder that receives simplenet_noise_<dataset>.md, .csv")
    options = parser.parse_args()
    finished = runs.find(options.results)
    setting = common_setting(finished)
    training = training_table(finished)
    table = training.merge(test_table(finished), on="noise_relative")
    stem = options.out / f"simplenet_noise_{setting['dataset']}"
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(f"{stem}.csv", index=False, float_format="%.6g", lineterminator="\n")
    page = text(table, setting)
    Path(f"{stem}.md").write_text(page, encoding="utf-8")
    print(page)


def common_setting(finished: runs.Runs) -> dict:
    """What all runs have in common. UserError where they differ in more than the noise and the seed."""
    settings = []
    for run in finished:
        config = {k: v for k, v in run.record["config"].items() if k != "noise_relative"}
        settings.append({**config, **{k: run.record[k] for k in ("method", "dataset", "category", "data")}})
    names = sorted(k for k in settings[0] if any(s.get(k) != settings[0][k] for s in settings))
    if names:
        raise UserError(
            f"the runs differ in {', '.join(names)}; give a folder whose runs differ in noise_relative only"
        )
    if settings[0]["method"] != "simplenet":
        raise UserError(f"the runs are of {settings[0]['method']}; noise_relative is a setting of simplenet")
    return settings[0]


def training_table(finished: runs.Runs) -> pd.DataFrame:
    """One row per noise: the last epoch's training loss and shares of rows beyond the margin, over the seeds."""
    rows = []
    for run in finished:
        last = run.history.iloc[-1]
        noise = run.record["config"]["noise_relative"]
        seed = run.record["seed"]
        rows.append({"noise_relative": noise, "seed": seed, **last[["total", "p_true", "p_fake"]]})
    groups = pd.DataFrame(rows).groupby("noise_relative")
    return groups.agg(
        seeds=("seed", "nunique"),
        loss_mean=("total", "mean"),
        loss_sd=("total", "std"),
        loss_max=("total", "max"),
        p_true=("p_true", "mean"),
        p_fake=("p_fake", "mean"),
    ).reset_index()


def test_table(finished: runs.Runs) -> pd.DataFrame:
    """One row per noise: mean, standard deviation over seeds and 95 % interval of the test metrics, 0..1."""
    noise = {run.record["hash"]: run.record["config"]["noise_relative"] for run in finished}
    rows = {}
    for row in finished.metrics.itertuples():
        if row.metric in SHOWN:
            values = {f"{row.metric}_{k}": getattr(row, k) for k in ("mean", "sd", "low", "high")}
            rows.setdefault(noise[row.hash], {}).update(values)
    return pd.DataFrame([{"noise_relative": k, **values} for k, values in rows.items()])


def chosen(table: pd.DataFrame) -> float | None:
    """The smallest noise that meets the rule, None where there is none."""
    enough = table[table.loss_mean < LIMIT]
    return None if enough.empty else float(enough.noise_relative.min())


def text(table: pd.DataFrame, setting: dict) -> str:
    """The page: rule, training loss, choice, and only then the test numbers."""
    noise = chosen(table)
    if noise is None:
        answer = f"No sigma brings the loss below {LIMIT:g}, so the rule chooses none."
    else:
        answer = f"**sigma = {noise:g}** times the features' deviation is the smallest that meets the rule."
        if noise == table.noise_relative.min():
            answer += " It is also the smallest that was tried, so a smaller one might meet it too."
    counts = " or ".join(str(n) for n in sorted(set(table.seeds)))
    training = table[["noise_relative", "seeds", "loss_mean", "loss_sd", "loss_max", "p_true", "p_fake"]]
    test = pd.DataFrame({"noise_relative": table.noise_relative})
    for metric in SHOWN:
        if f"{metric}_mean" in table:
            test[metric] = [cell(row, metric) for row in table.to_dict("records")]
    return f"""# SimpleNet's noise on {setting["dataset"]}

{setting["backbone"]}, {setting["image_size"]} px ({setting["resize_mode"]}), {setting["epochs"]} epochs, \
{counts} seeds for each noise. All of it is reduced: the paper has \
wide_resnet50_2, 288 px and 160 epochs.

## The rule, written down before the first of these runs had finished

The smallest sigma whose training loss of the last epoch, the mean over the seeds, is below {LIMIT:g}. Nothing of the \
test set takes part. Known before: the test numbers of the reference runs in this folder (256 px, sigma 0.5).

## Training loss

{training.to_markdown(index=False, floatfmt=".3g")}

loss: eq. (7) in the last epoch, mean, standard deviation and largest over the seeds. p_true, p_fake: shares of normal \
and of noisy rows beyond the margin.

{answer}

## Test numbers, looked at after the choice

They judge the rule; they did not choose. Percent, mean over the seeds +- their standard deviation, with the 95 % \
interval over images.

{test.to_markdown(index=False, disable_numparse=True)}

Written by `python benchmarks/simplenet_noise.py`.
"""


def cell(row: dict, metric: str) -> str:
    mean, sd, low, high = (100 * row[f"{metric}_{k}"] for k in ("mean", "sd", "low", "high"))
    return f"{mean:.1f} +- {sd:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
