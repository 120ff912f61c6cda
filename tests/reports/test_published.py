"""The published numbers intact, their averages recomputed, errata real and complete, every system in its role."""

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest

from adlib import models
from adlib.common.errors import UserError
from adlib.metrics.names import PLAIN
from adlib.reports import measured, published

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
    scores = cells[~cells["metric"].isin(PLAIN)]
    assert scores["value"].dropna().between(0, 100).all()
    missing = cells[cells["value"].isna()]
    assert set(missing["printed"]) == {"-"}
    assert set(missing["system"]) == {"CS-Flow"}
    assert len(missing) == 18


@pytest.mark.parametrize(
    ("paper", "rows"), [("improved_mae", 96), ("mmaerec", 433), ("simplenet", 360), ("draem", 215), ("validflow", 243)]
)
def test_row_counts_are_those_of_the_transcription(paper, rows):
    """The counts of the transcription in the specifications; paper 01 also quotes 8 averages in its introduction."""
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
    """The published numbers are copies of the transcription; the averages of paper 01's introduction stand in it."""
    folder = shared / "specs" / "published"
    for paper in published.PAPERS:
        name = "simplenet_table1" if paper == "simplenet" else paper
        source = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        ours = published._read(paper)
        assert source.equals(ours[ours.table != "sec0"])
    text = (shared / "papers" / "improved_mae.txt").read_text(encoding="utf-8")
    quoted = published.load("improved_mae").query("table == 'sec0'")
    assert len(quoted) == 8
    assert all(f"为 {printed}" in text for printed in quoted.printed)


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


# what told the roles apart before roles.csv: names of the reproduced systems, default rows, a pattern for variants
OWN = {"Improved MAE", "MMAERec", "SimpleNet (reproduction of the report)", "DRAEM", "ValidFlow"}
DEFAULTS = ("E2D4 r=0.75", "MMAERec memory+edge", "MMAERec attention=CA", "MMAERec memory levels=1-4")
DEFAULTS += ("MMAERec loss=l2+ssim+entropy", "ValidFlow n=3", "ValidFlow +CBAM +branches13")
VARIANT = re.compile(r"E\d+D\d+ |MMAERec |ValidFlow |DRAEM ")


def expected_role(paper: str, system: str) -> str:
    """A reproduced system is a rival in the tables of other papers: the report quotes DRAEM."""
    if system in OWN and published.method_of(paper, system) == paper:
        return "own"
    if system == "SimpleNet (original)":
        return "beside"
    if system in DEFAULTS:
        return "default"
    return "variant" if VARIANT.match(system) else "rival"


def test_every_system_has_the_role_that_its_name_says():
    """All 119 systems of the five papers: 5 own, 1 beside, 7 defaults, 23 + 14 + 9 + 7 = 53 variants, 53 rivals."""
    cells = published.load()[["paper", "system"]].drop_duplicates()
    roles = published.roles()
    assert set(map(tuple, cells.to_numpy())) == set(roles[["paper", "system"]].itertuples(index=False, name=None))
    assert not roles.duplicated(["paper", "system"]).any()
    for row in roles.itertuples():
        assert row.role == expected_role(row.paper, row.system), row
    counts = roles["role"].value_counts()
    assert [counts[r] for r in published.ROLES] == [5, 1, 7, 53, 53]


def test_every_paper_has_one_system_of_its_own_and_a_title():
    """The order is that of the notebooks; each key leads to the system under the same registry name and back."""
    assert list(published.papers()["paper"]) == ["improved_mae", "mmaerec", "simplenet", "draem", "validflow"]
    assert published.papers()[["title", "citation"]].map(len).min().min() > 20
    own = published.roles().query("role == 'own'")
    assert list(own["paper"]) == list(published.PAPERS)
    for paper in published.PAPERS:
        assert published.method_of(paper, published.own_system(paper)) == paper
        assert published.paper_of(paper) == paper
    assert published.paper_of("padim") is None
    assert published.beside_system("simplenet") == "SimpleNet (original)"
    assert published.beside_system("draem") is None


def test_a_variant_with_a_config_is_one_that_our_config_accepts():
    """DRAEM's three rows on augmentation, seven of ValidFlow's Tables 6 and 7, 14 of MMAERec's Tables 5 to 8; the
    default changes nothing, what we cannot make has no config.
    """
    roles = published.roles()
    known = roles[[config is not None for config in roles["config"]]]
    assert set(known.query("role in ('own', 'default')").index) == set(roles.query("role in ('own', 'default')").index)
    changed = known[[bool(config) for config in known["config"]]]
    assert changed["paper"].value_counts().to_dict() == {"draem": 3, "validflow": 7, "mmaerec": 14}
    for row in changed.itertuples():
        config_class = models.get(published.method_of(row.paper, row.system))[1]
        made = config_class.from_dict(config_class().to_dict() | row.config)
        assert made != config_class()


def test_unknown_papers_and_systems_are_one_sentence():
    """The nearest name and the valid ones stand in the message."""
    with pytest.raises(UserError, match=r"unknown paper 'simplnet'; did you mean 'simplenet'\? valid: improved_mae"):
        published.load("simplnet")
    with pytest.raises(UserError, match=r"unknown system in the tables of simplenet 'RevDst'; did you mean 'RevDist'"):
        published.role("simplenet", "RevDst")
