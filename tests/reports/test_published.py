"""The published numbers intact, their averages recomputed, errata real and complete; the verdict by hand-made cases."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_runs

from adlib.common.errors import UserError
from adlib.reports import measured, published, verdict

KEY = ["paper", "table", "dataset", "category", "system", "metric"]


def recomputed_means() -> dict[tuple, tuple[Fraction, Fraction, int]]:
    """{key of an average: (mean of the printed rows, printed average, decimals of the column)}, exact."""
    cells = published.load()
    cells = cells[cells["value"].notna()]
    out = {}
    for key, group in cells.groupby(["paper", "table", "dataset", "system", "metric"]):
        exact = {c.category: Fraction(str(c.value)) for c in group.itertuples()}
        rows = {c: v for c, v in exact.items() if c not in (*measured.AVERAGES, "all")}
        for average in set(exact) & set(measured.AVERAGES) if rows else ():
            kept = [v for c, v in rows.items() if measured.belongs(c, average)]
            decimals = group["column_decimals"].iloc[0]
            out[(*key[:3], average, *key[3:])] = (sum(kept) / len(kept), exact[average], decimals)
    return out


def mean_errata() -> dict[tuple, pd.Series]:
    table = published.errata()
    return {tuple(row[KEY]): row for _, row in table[table["kind"] == "mean"].iterrows()}


def test_cells_are_unique_and_in_range():
    """One row per cell; scores are 0..100 percent; only a dash has no value (CS-Flow's 18 pixel cells)."""
    cells = published.load()
    assert not cells.duplicated(KEY).any()
    scores = cells[~cells["metric"].isin(published.PLAIN)]
    assert scores["value"].dropna().between(0, 100).all()
    missing = cells[cells["value"].isna()]
    assert set(missing["printed"]) == {"-"}
    assert set(missing["system"]) == {"CS-Flow"}
    assert len(missing) == 18


@pytest.mark.parametrize(
    ("paper", "rows"), [("improved_mae", 88), ("mmaerec", 433), ("simplenet", 360), ("draem", 215), ("validflow", 243)]
)
def test_row_counts_are_those_of_the_transcription(paper, rows):
    """The counts that the specifications give for each transcription."""
    assert len(published.load(paper)) == rows


def test_values_agree_with_the_print():
    """`value` is the printed number, times 100 where the paper prints fractions (only paper 01 does)."""
    cells = published.load().dropna(subset="value")
    factor = np.where(cells["paper"] == "improved_mae", 100, 1)
    assert np.allclose(cells["printed"].astype(float) * factor, cells["value"])


def test_decimals_are_on_the_scale_of_the_value():
    """0.994 is 99.4 percent: one decimal. "100" in a column of 99.6 has none itself, the column has one."""
    mae = published.load("improved_mae")
    assert set(mae["decimals"]) == {1}
    report = published.load("simplenet").set_index(["category", "system", "metric"])
    cell = report.loc[("grid", "CutPaste", "image_auroc")]
    assert (cell["printed"], cell["decimals"], cell["column_decimals"]) == ("100", 0, 1)


def test_companion_has_the_same_numbers(shared):
    """The published numbers are copies of the transcription, not typed again."""
    folder = shared / "specs" / "published"
    for paper in published.PAPERS:
        name = "simplenet_table1" if paper == "simplenet" else paper
        source = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        assert source.equals(published._read(paper))


def test_every_wrong_average_is_an_erratum():
    """A printed average farther than half a unit of its last digit from the mean of its rows must be listed."""
    means = recomputed_means()
    assert len(means) > 60
    wrong = {k for k, (mean, value, d) in means.items() if abs(mean - value) > Fraction(1, 2) / 10 ** int(d)}
    assert len(wrong) >= 14
    assert wrong <= set(mean_errata())


def test_every_mean_erratum_is_real():
    """It quotes the print, differs from it, and `corrected` is the recomputed mean rounded to its own digits."""
    means, printed = recomputed_means(), published.load().set_index(KEY)["value"]
    for key, row in mean_errata().items():
        assert float(row["printed"]) == printed[key]
        assert Decimal(row["corrected"]) != Decimal(row["printed"])
        digits = len(row["corrected"].partition(".")[2])
        assert abs(Fraction(row["corrected"]) - means[key][0]) <= Fraction(1, 2) / 10**digits


def test_other_errata_quote_a_published_cell():
    """Errata of a cell quote its value; an exchanged pair exchanges; another source's value differs from the print."""
    printed = published.load().set_index(KEY)["value"]
    table = published.errata()
    cells = table[table["kind"].isin(["exchanged", "other source", "arithmetic"])]
    for _, row in cells.iterrows():
        assert float(row["printed"]) == printed[tuple(row[KEY])]
        assert float(row["corrected"]) != float(row["printed"])
    exchanged = table[table["kind"] == "exchanged"].groupby("system")
    for _, pair in exchanged:
        assert list(pair["printed"]) == list(pair["corrected"])[::-1]
    assert not table.duplicated([*KEY, "printed"]).any()
    assert (table["printed"] != table["corrected"]).all()


def test_errata_from_other_sources_are_in_those_sources():
    """mmaerec's AE-SSIM, RIAD and US cells against the tables of the report and of DRAEM."""
    cells = published.load().set_index(KEY)["value"]
    other = published.errata("mmaerec").query("kind == 'other source'")
    for row in other.itertuples():
        paper = "draem" if row.system == "US" else "simplenet"
        table = "table2" if row.system == "US" else "table1"
        assert cells[paper, table, "mvtec_ad", row.category, row.system, row.metric] == float(row.corrected)


def test_mended_cells_give_the_printed_average():
    """mmaerec: US AP with tile 65.3 is 45.47 -> 45.5; RIAD with tile and hazelnut mended is 91.65 -> 91.7."""
    cells, errata = published.load("mmaerec"), published.errata("mmaerec")
    for system, metric, average in (("US", "pixel_ap", 45.5), ("RIAD", "image_auroc", 91.7)):
        own = cells[(cells["system"] == system) & (cells["metric"] == metric)]
        column = own.set_index("category")["value"].copy()
        for row in errata[(errata["kind"] == "other source") & (errata["system"] == system)].itertuples():
            column[row.category] = float(row.corrected)
        assert column.drop("average").mean() == pytest.approx(average, abs=0.05 + 1e-9)


def test_dagm_accuracy_errata_follow_from_tpr_and_tnr():
    """accuracy = p TPR + (1 - p) TNR; RIAD, US, PaDiM give p = 0.126 on average: MAD 84.8, DRAEM 99.0."""
    t = published.load("draem").query("table == 'table4'").pivot(index="system", columns="metric", values="value")
    share = ((t["accuracy"] - t["tnr"]) / (t["tpr"] - t["tnr"])).loc[["RIAD", "US", "PaDiM"]].mean()
    implied = share * t["tpr"] + (1 - share) * t["tnr"]
    for row in published.errata("draem").query("kind == 'arithmetic'").itertuples():
        assert implied[row.system] == pytest.approx(float(row.corrected), abs=0.1)


def test_errata_of_text_follow_from_the_tables():
    """0.895 - 0.877 = 1.8 points; relative 2.05 %; DRAEM 68.4 - 55.0 = 13.4; ValidFlow best in 6 of 15."""
    cells = published.load().set_index(KEY)["value"].sort_index()
    mae = cells["improved_mae", "table1", "mvtec_ad", "average"].droplevel("metric")
    gain = mae["Improved MAE"] - mae[["MKD", "U-Net", "DAGAN"]]
    assert np.allclose(gain, [1.8, 7.6, 2.2])
    assert np.allclose(100 * gain / mae[["MKD", "U-Net", "DAGAN"]], [2.05, 9.28, 2.52], atol=0.005)
    ap = cells["draem", "table2", "mvtec_ad", "average"].xs("pixel_ap", level="metric")
    assert ap["DRAEM"] - ap["PaDiM"] == pytest.approx(13.4)
    flow = published.load("validflow").query("table == 'table2' and category != 'average'")
    wide = flow.pivot(index="category", columns="system", values="value")
    rivals = wide.drop(columns="ValidFlow")
    assert (wide["ValidFlow"] > rivals.max(axis=1)).sum() == 6
    assert (wide["ValidFlow"] >= rivals.max(axis=1)).sum() == 9
    assert (wide["ValidFlow"] >= wide["CS-Flow"]).sum() == 11
    assert len(published._read("validflow_table1")) == 73


def test_protocol_says_what_each_paper_states():
    """Only stated values are stated: the report never names a size, paper 01 trains one model for all categories."""
    assert published.PROTOCOL["simplenet"]["image_size"] == "not stated"
    assert published.PROTOCOL["improved_mae"]["training"] == "together"
    assert published.protocol("validflow", "mvtec_ad")["image_size"]["stated"] == "768"
    assert published.protocol("validflow", "mtd")["image_size"]["stated"] == "384"
    assert {frozenset(fields) for fields in published.PROTOCOL.values()} == {frozenset(published.PROTOCOL["draem"])}


def test_published_systems_lead_to_registry_names():
    """Variants of an ablation belong to the paper's own system; a system that we do not have leads to None."""
    assert published.method_of("simplenet", "SimpleNet (reproduction of the report)") == "simplenet"
    assert published.method_of("simplenet", "RevDist") == "reverse_distillation"
    assert published.method_of("improved_mae", "E2D2 r=0.50") == "improved_mae"
    assert published.method_of("validflow", "ARNet") is None


def cell_of(runs, category="bottle", metric="image_auroc", **keywords):
    table = verdict.verdict(runs, "simplenet", **keywords)
    return table[(table["category"] == category) & (table["metric"] == metric)].iloc[0]


def test_reproduced_where_the_band_meets_the_interval():
    """Bottle I is printed 100.0, i.e. at least 0.9995; our interval [0.9797, 0.9997] meets it."""
    row = cell_of(fake_runs({("bottle", "image_auroc"): [0.9897]}))
    assert row["verdict"] == "reproduced"
    assert (row["published"], row["beside"], row["measured"]) == (1.0, 1.0, 0.9897)
    assert (row["n_seeds"], row["n_images"], row["interval_method"]) == (1, 80, "bootstrap")


def test_within_noise_needs_two_seeds_and_two_sd():
    """Mean 0.98 +- 0.01: 1.000 lies 0.0195 from it (less half a digit); sd of (0.97, 0.99) is 0.0141, twice 0.0283."""
    assert cell_of(fake_runs({("bottle", "image_auroc"): [0.97, 0.99]}))["verdict"] == "within noise"
    assert cell_of(fake_runs({("bottle", "image_auroc"): [0.98]}))["verdict"] == "not reproduced"


def test_not_reproduced_outside_interval_and_noise():
    """0.95 with sd 0.0014: 1.000 is 35 sd away."""
    row = cell_of(fake_runs({("bottle", "image_auroc"): [0.949, 0.951]}))
    assert row["verdict"] == "not reproduced"
    assert verdict.check(fake_runs({("bottle", "image_auroc"): [0.95]}), "simplenet")[1] is False


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"epochs": 2}, "epochs 2"),
        ({"backbone": "resnet18.tv_in1k"}, "backbone resnet18"),
        ({"image_size": 192}, "image_size 192"),
        ({"resize": 288}, "resize 288"),
        ({"noise_std": 0.15}, "noise_std 0.15"),
    ],
)
def test_reduced_runs_are_not_comparable_and_say_why(config, reason):
    """A value equal to the published one stays without verdict if the run is another experiment."""
    row = cell_of(fake_runs({("bottle", "image_auroc"): [1.0]}, config=config))
    assert row["verdict"] == "not comparable"
    assert f"differs in {next(iter(config))}" in row["reason"]
    assert reason in row["differs"]


@pytest.mark.parametrize("config", [{"holdback": 0.0}, {"mask_rule": "half"}, {"epochs": 320}])
def test_listed_differences_do_not_forbid(config):
    """Hold-back, mask rule and longer training are listed, not forbidding."""
    row = cell_of(fake_runs({("bottle", "pixel_auroc"): [0.98]}, config=config), metric="pixel_auroc")
    assert row["verdict"] == "reproduced"
    assert next(iter(config)) in row["differs"]


def test_another_training_setting_is_not_comparable():
    """Paper 01 states one model for all categories; ours per category is another experiment, also at equal numbers."""
    config = {"image_size": 224, "resize_mode": "squash", "epochs": 1000}
    runs = fake_runs({("bottle", "image_auroc"): [0.993]}, method="improved_mae", paper_config=config)
    table = verdict.verdict(runs, "improved_mae").set_index("category")
    assert table.loc["bottle", "verdict"] == "not comparable"
    assert "training per category (paper together)" in table.loc["bottle", "differs"]


def test_selection_on_the_test_set_is_listed_and_the_oracle_stands_beside():
    """The report's numbers are those of the best epoch on the test set; ours of the last, the oracle is not judged."""
    cells = {("bottle", "image_auroc"): [0.9], ("bottle", "image_auroc (oracle best epoch)"): [1.0]}
    row = cell_of(fake_runs(cells))
    assert "select last (best_test (oracle) in the authors' code)" in row["differs"]
    assert (row["oracle"], row["verdict"]) == (1.0, "not reproduced")


def test_silence_of_the_paper_is_listed():
    """Fields of which nobody states a value are named in every verdict."""
    config = {"image_size": 256, "resize_mode": "squash", "epochs": 600}
    runs = fake_runs({("carpet", "image_auroc"): [0.963]}, method="mmaerec", paper_config=config)
    row = verdict.verdict(runs, "mmaerec").iloc[0]
    assert row["verdict"] == "reproduced"
    assert "not stated: resize, resample, holdback, select" in row["differs"]


def test_not_run_without_a_run():
    """Nothing run: every cell "not run"; `check` refuses to call that a success."""
    table = verdict.verdict(None, "simplenet")
    assert set(table["verdict"]) == {"not run"}
    assert len(table) == 36
    with pytest.raises(UserError, match="no finished run of simplenet"):
        verdict.check(None, "simplenet")


def test_average_over_some_categories_is_not_comparable():
    """Two of fifteen categories: no verdict on the average; the textures' average of five of five has one."""
    two = fake_runs({("bottle", "image_auroc"): [1.0], ("cable", "image_auroc"): [1.0]})
    row = cell_of(two, "average")
    assert (row["verdict"], row["n_images"]) == ("not comparable", 160)
    assert "2 of 15 categories" in row["reason"]
    five = fake_runs({(c, "image_auroc"): [0.998] for c in measured.TEXTURES})
    assert cell_of(five, "avg_textures")["verdict"] == "reproduced"
    assert cell_of(five, "avg_objects")["verdict"] == "not run"


def test_average_has_the_sd_of_per_seed_averages():
    """Seeds (0.90, 0.96), (1.00, 0.90): means 0.93, 0.95, sd 0.01414; half the interval 0.01 * sqrt(2) / 2."""
    runs = fake_runs({("bottle", "image_auroc"): [0.90, 1.00], ("cable", "image_auroc"): [0.96, 0.90]})
    value = verdict.ours(runs, "simplenet", "mvtec_ad", "average", "image_auroc")
    assert value["mean"] == pytest.approx(0.94)
    assert value["sd"] == pytest.approx(0.0141421, abs=1e-6)
    assert (value["n_seeds"], value["n_categories"]) == (2, 2)
    assert value["high"] - value["mean"] == pytest.approx(0.01 / np.sqrt(2))


def test_undefined_category_is_left_out_of_the_average():
    """A category with one class only has a NaN AUROC: left out, and the average says so."""
    runs = fake_runs({("bottle", "image_auroc"): [0.9], ("cable", "image_auroc"): [np.nan]})
    assert verdict.ours(runs, "simplenet", "mvtec_ad", "average", "image_auroc")["n_categories"] == 1
    assert cell_of(runs, "cable")["verdict"] == "not run"


def test_errata_are_judged_at_the_corrected_value():
    """SimpleNet (original), objects: printed 99.5, rows give 99.44; the row carries both."""
    runs = fake_runs({("bottle", "image_auroc"): [1.0]})
    table = verdict.verdict(runs, "simplenet", systems=["SimpleNet (original)"])
    row = table.query("category == 'avg_objects' and metric == 'image_auroc'").iloc[0]
    assert row["published"] == pytest.approx(0.995)
    assert row["erratum"].startswith("99.5 -> 99.44")


def test_single_category_data_set_and_other_spellings_match():
    """validflow prints `all` for MTD and `class_1` for DAGM's Class1; its settings for MTD count there."""
    default = {"image_size": 768, "resize_mode": "squash", "epochs": 300, "backbone": "tf_efficientnet_b5.ns_jft_in1k"}
    config = {"image_size": 384, "epochs": 60}
    cells = {("tiles", "image_auroc"): [0.996]}
    runs = fake_runs(cells, "validflow", "mtd", config=config, paper_config=default)
    table = verdict.verdict(runs, "validflow").query("table == 'table3'")
    assert list(table["verdict"]) == ["reproduced"]
    dagm = fake_runs({("Class1", "image_auroc"): [0.943]}, "validflow", "dagm", paper_config=default)
    assert verdict.verdict(dagm, "validflow").query("category == 'class_1'")["verdict"].item() == "reproduced"


def test_speed_is_shown_and_never_judged():
    """Frames per second come from other hardware (specs/common 5)."""
    cells = {("all", "frames_per_second"): [122.0]}
    runs = fake_runs(cells, "validflow", "none", paper_config={"image_size": 768})
    row = verdict.verdict(runs, "validflow").query("metric == 'frames_per_second'").iloc[0]
    assert (row["verdict"], row["published"]) == ("not comparable", 122.0)


def test_runs_of_the_default_do_not_stand_for_a_variant():
    """A row of an ablation table needs runs of that variant: same numbers, default config -> no verdict."""
    config = {"image_size": 256, "resize_mode": "squash", "epochs": 600, "branches": "both"}
    cells = {(c, "image_auroc"): [0.928] for c in published.load("mmaerec")["category"].unique()[:15]}
    system = ["MMAERec edge only"]
    default = fake_runs(cells, "mmaerec", paper_config=config)
    variant = fake_runs(cells, "mmaerec", paper_config=config, config={"branches": "edge"})
    for runs, expected in ((default, "not comparable"), (variant, "reproduced")):
        table = verdict.verdict(runs, "mmaerec", systems=system).query("metric == 'image_auroc'")
        assert table["verdict"].item() == expected


def test_unknown_names_are_one_sentence():
    """The valid names stand in the message."""
    with pytest.raises(UserError, match="unknown paper 'simplnet'; valid: improved_mae"):
        published.load("simplnet")
    with pytest.raises(UserError, match=r"unknown system 'X'.*CutPaste"):
        verdict.verdict(None, "simplenet", systems=["X"])


def test_settings_are_kept_apart_and_the_papers_comes_first():
    """A folder with a quick run (0.80) and a run in the paper's setting (1.00): the verdict is about the latter."""
    quick = fake_runs({("bottle", "image_auroc"): [0.8]}, config={"epochs": 2}, run_hash="quick")
    full = fake_runs({("bottle", "image_auroc"): [1.0]}, run_hash="full")
    both = type(quick)(metrics=pd.concat([quick.metrics, full.metrics]), runs=quick.runs + full.runs)
    assert cell_of(both)["measured"] == 1.0
    assert [s.departures for s in measured.settings(both)] == [0, 1]


def test_one_model_for_all_categories_has_one_record_for_them():
    """Paper 01: the values of a category stand in the record's `per_category`."""
    config = {"image_size": 224, "resize_mode": "squash", "epochs": 1000}
    runs = fake_runs({("bottle", "image_auroc"): [0.99, 0.99]}, "improved_mae", paper_config=config)
    for run in runs.runs:
        run.record["per_category"] = {"bottle": {"metrics": run.record.pop("metrics")}}
        run.record |= {"category": "together", "protocol": {"training": "together"}}
    table = verdict.verdict(runs, "improved_mae").set_index("category")
    assert table.loc["bottle", "verdict"] == "reproduced"
    assert "training" not in table.loc["bottle", "differs"]
