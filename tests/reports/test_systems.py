"""Systems side by side: every seed, and the others' names as the papers print them."""

from types import SimpleNamespace

import pandas as pd

from adlib.reports import systems


def runs_of(**values):
    """Runs by seed: category = image AUROC of each seed."""
    count = len(next(iter(values.values())))
    records = [
        {"seed": k, "per_category": {c: {"metrics": {"image_auroc": v[k]}} for c, v in values.items()}}
        for k in range(count)
    ]
    return [SimpleNamespace(record=record) for record in records]


def test_names_are_those_of_the_papers():
    """A registered name becomes the printed one; any other text stays."""
    assert systems.name_of("csflow") == "CS-Flow"
    assert systems.name_of("nearest_neighbour") == "1-NN"
    assert systems.name_of("ValidFlow after one step") == "ValidFlow after one step"


def test_only_what_both_have_is_compared():
    """Two seeds against two: 0.9 and 0.8 beside 0.7 and 0.85; a category that the rival lacks is left out."""
    found = systems.against(runs_of(bottle=[0.9, 0.8], screw=[0.6, 0.6]), {"csflow": runs_of(bottle=[0.7, 0.85])})
    assert found.to_dict("records") == [
        {"category": "bottle", "seed": s, "rival": "CS-Flow", "metric": "image_auroc", "value": v, "ours": o}
        for s, v, o in ((0, 0.7, 0.9), (1, 0.85, 0.8))
    ]


def test_the_table_has_ours_first_and_the_mean_over_seeds():
    """In percent: 90 and 80 have the mean 85."""
    table = systems.table(runs_of(bottle=[0.9, 0.8]), {"csflow": runs_of(bottle=[0.7, 0.85])})
    assert list(table.columns) == ["seed 0", "seed 1", "mean"]
    assert table.index.get_level_values("system").tolist() == ["ours", "CS-Flow"]
    assert table.loc[("bottle", "image AUROC", "ours")].tolist() == [90.0, 80.0, 85.0]


def test_nothing_to_compare_is_an_empty_table():
    """Other categories: no row, and no sentence."""
    found = systems.against(runs_of(bottle=[0.9]), {"csflow": runs_of(screw=[0.9])})
    assert isinstance(found, pd.DataFrame)
    assert not len(found)


def test_rivals_share_the_features_and_nothing_else():
    """Backbone and side of ValidFlow's config; training and widths are their own; last ValidFlow after one step."""
    config = {"backbone": "b", "image_size": 128, "hidden": 8, "epochs": 5, "batch_size": 4}
    shared = {"backbone": "b", "image_size": 128}
    assert systems.rivals("validflow", config, {"csflow": {"epochs": 3}, "mahalanobis": {}}) == [
        ("csflow", shared | {"epochs": 3}),
        ("mahalanobis", shared),
        ("validflow", config | {"epochs": None, "steps": 1}),
    ]
    assert systems.rivals("validflow", config, {}) == []


def test_other_papers_rivals_have_their_own_settings_only():
    """U-Net and DAGAN share nothing with the masked autoencoder beside them."""
    assert systems.rivals("improved_mae", {"epochs": 3}, {"dagan": {"steps": 5}}) == [("dagan", {"steps": 5})]
