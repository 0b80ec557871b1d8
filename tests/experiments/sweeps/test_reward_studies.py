"""`ablate-rewards` and `sweep-weights` on a tiny table: files, columns, resuming, claims by hand, errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vaportok_rl.agents import HeldOut, build_length_policy
from vaportok_rl.cli.main import main
from vaportok_rl.envs import TaildropProcess, VaporReward
from vaportok_rl.envs.rewards.presets import PRESETS
from vaportok_rl.envs.rewards.terms import FIVE_TERMS
from vaportok_rl.envs.table.building import TableBuilder, plan_table
from vaportok_rl.envs.table.shards import weights_digest
from vaportok_rl.evaluation.feature_distances import FeatureStatistics, frechet_distance
from vaportok_rl.evaluation.feature_networks import open_feature_network
from vaportok_rl.experiments.generation.length_distances import DistanceSettings, LengthDistances
from vaportok_rl.experiments.runs.training import TrainSettings
from vaportok_rl.experiments.runs.world_settings import RewardSettings
from vaportok_rl.experiments.sweeps import ablation, running, weights
from vaportok_rl.experiments.sweeps.columns import Column
from vaportok_rl.experiments.sweeps.medians import median_cell
from vaportok_rl.experiments.sweeps.plan import read_plan
from vaportok_rl.generation import ClipGenerator, GeneratorConfig, generate_codes
from vaportok_rl.tokenizer import VaporTok

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def table_folder(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tables") / "tiny"
    TableBuilder(plan_table(tokenizer=tiny_world, count=18, held_out=9, grid=1), folder).run()
    return str(folder)


@pytest.fixture(scope="module")
def generator(tiny_world: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = tuple(TaildropProcess(tokenizer=tiny_world, split="test").source.label_names)
    config = GeneratorConfig(width=16, layers=1, heads=2, tokens=16, codebook_size=32, label_names=names)
    folder = tmp_path_factory.mktemp("generators")
    ClipGenerator(dataclasses.replace(config, tokenizer=tiny_world, weights=weights_digest(tiny_world)[:16])).save(
        folder
    )
    return folder


@pytest.fixture
def study(table_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a study of tiny runs, whose pictures are left out."""
    monkeypatch.setattr("vaportok_rl.experiments.runs.progress_report.add_clip", lambda *_: None)
    monkeypatch.setattr("vaportok_rl.experiments.runs.progress_report.comparison_frames", lambda *_, **__: None)
    sizes = ["--path-length", "3", "--scenes", "2", "--group-size", "2", "--decisions", "24", "--held-out-scenes", "3"]

    def run(name: str, *options: str) -> None:
        main([name, "--table", table_folder, *sizes, *options, "--out", str(tmp_path / "out")])

    return run


def test_table_1_is_written_and_goes_on(
    study: Callable[..., None], generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study("ablate-rewards", "--seeds", "3", "--generator", str(generator))
    rows = pd.read_csv(tmp_path / "out" / "ablation.csv")
    assert list(rows.columns[:9]) == ["variant", "seed", "tokens", "mse", "psnr", "accuracy", "rfvd", "gfvd", "reward"]
    assert list(rows["variant"].unique()) == list(ablation.VARIANTS)
    assert list(rows["seed"]) == [3] * 6
    assert np.isfinite(rows[["rfvd", "gfvd", "rfvd_mmd", "gfvd_mmd"]].to_numpy()).all()
    # One reward for all rows: of all terms with the preset's weights.
    terms = sum(weight * rows[f"reward_{term}"] for term, weight in PRESETS["paper"].weights.items())
    assert rows["reward"].to_numpy() == pytest.approx(terms.to_numpy())
    page = (tmp_path / "out" / "ablation.md").read_text()
    for written in (
        "| without `efficiency` |",
        "| 577 |",
        "held** (",
        "gFVD: 9 clips against 9",
        "read the MMD",
        "Wh if",
    ):
        assert written in page

    asked: list[str] = []
    before = running.learn
    monkeypatch.setattr(running, "learn", lambda *given, **more: asked.append(given[1].name) or before(*given, **more))
    (tmp_path / "out" / "runs" / "full-3" / "result.json").unlink()
    study("ablate-rewards", "--seeds", "3", "--generator", str(generator))
    assert asked == ["full-3"]
    assert pd.read_csv(tmp_path / "out" / "ablation.csv").equals(rows)
    asked.clear()
    study("ablate-rewards", "--seeds", "3")  # without the generator: only the distances are measured again
    assert len(asked) == 6
    again = pd.read_csv(tmp_path / "out" / "ablation.csv")
    assert again["gfvd"].isna().all()
    same = ["variant", "tokens", "mse", "rfvd", "reward"]
    assert again[same].equals(rows[same])


def test_distances_are_known_by_the_weights_and_not_by_their_place(generator: Path, tmp_path: Path) -> None:
    model = ClipGenerator.load(generator)
    settings = DistanceSettings(generator=str(model.save(tmp_path).parent))
    before = settings.identity()
    assert before == DistanceSettings(generator=str(generator)).identity()
    next(model.parameters()).data += 1
    model.save(tmp_path)
    assert [first == second for first, second in zip(before, settings.identity(), strict=True)] == [True, False]


def test_figure_3_is_drawn_and_says_why_there_is_no_gfvd(study: Callable[..., None], tmp_path: Path) -> None:
    study("sweep-weights", "--seeds", "0", "--weights", "1", "3")
    page = (tmp_path / "out" / "sweep-weights.md").read_text()
    assert "| 1:1:1:3:3 |" in page
    assert "| rFVD |" in page
    assert page.count("held** (") == 3
    assert (tmp_path / "out" / "images" / "sweep-weights.png").stat().st_size > 10_000


def test_a_quick_study_builds_its_tables_and_says_that_it_is_quick(
    tiny_world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaportok_rl.cli.sweep._QUICK_CLIPS", (18, 9))
    monkeypatch.setattr("vaportok_rl.experiments.sweeps.ablation.VARIANTS", dict(list(ablation.VARIANTS.items())[:1]))
    monkeypatch.setattr("vaportok_rl.experiments.sweeps.ablation._CLAIMS", ())
    sizes = ["--path-length", "3", "--scenes", "2", "--group-size", "2", "--decisions", "12"]
    for _ in range(2):  # the second finds everything
        main(["ablate-rewards", "--quick", "--tokenizer", tiny_world, *sizes, "--out", str(tmp_path)])
    page = (tmp_path / "ablation.md").read_text()
    assert "**Quick**" in page
    assert "| no generator | 118 |" in page
    assert len(pd.read_csv(tmp_path / "ablation.csv")) == 1
    assert (tmp_path / "table-test" / "manifest.json").is_file()


def test_a_variant_leaves_its_term_out_and_the_weights_are_those_of_the_example() -> None:
    for name, changes in list(ablation.VARIANTS.items())[1:]:
        assert changes == {f"reward.weights.{name.removeprefix('without-')}": 0}
    example = read_plan(ROOT / "examples" / "sweep_weights.toml")
    assert example.variants == weights.weight_variants((1, 2, 4, 8), VaporReward(preset="paper"))
    assert len(example.seeds) >= 3


def test_the_distances_are_those_of_the_clips(tiny_world: str, table_folder: str, generator: Path) -> None:
    process = TaildropProcess(table=table_folder, split="test", path_length=3)
    held_out = HeldOut(process, 3)
    lengths = build_length_policy("random", process)(held_out.scene, torch.Generator().manual_seed(1)).n_tokens
    found = LengthDistances(DistanceSettings(generator=str(generator)), process, held_out.scene)(lengths)
    world, network = VaporTok.from_pretrained(tiny_world), open_feature_network()
    labels = held_out.scene.labels.flatten()
    written = generate_codes(ClipGenerator.load(generator), labels, n_tokens=lengths.flatten())
    real = FeatureStatistics.of(network(held_out.scene.clips.flatten(0, 1)))
    for name, codes in (("rfvd", held_out.scene.codes.flatten(0, 1)), ("gfvd", written.codes)):
        video = (world.decode(codes, lengths.flatten()) * 255).round().to(torch.uint8)
        expected = frechet_distance(real, FeatureStatistics.of(network(video)), allow_few=True)
        assert found[name].frechet == pytest.approx(expected, rel=1e-4), name
    assert found["rfvd"].frechet != pytest.approx(found["gfvd"].frechet, rel=1e-3)


def frame(**tokens: tuple[float, float, float]) -> pd.DataFrame:
    errors = {"without_penalty": 9e-3, "without_efficiency": 1e-3}
    rows = [
        {"variant": name.replace("_", "-"), "seed": seed, "tokens": value, "mse": errors.get(name, 4e-3)}
        for name, values in tokens.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(psnr=20.0, accuracy=0.03, rfvd=2.0, gfvd=np.nan, saved=0.1)


def test_the_table_and_its_claims_by_hand() -> None:
    measured = frame(
        full=(20, 24, 22),
        without_efficiency=(60, 60, 23),
        without_penalty=(5, 6, 7),
        without_diversity=(20, 20, 20),
        without_reconstruction=(25, 21, 23),
        without_generation=(19, 19, 19),
    )
    lines = ablation.ablation_table(measured).splitlines()
    shown = ("tokens", "rFVD", "PSNR", "gFVD", "MSE·10³", "top-5 %")
    assert lines[0] == f"|  | {' | source | '.join(shown)} | source | saved % |"
    assert lines[2].startswith("| full | 22.0 [20.0, 24.0] | 299 | 2 [2, 2] | 72.5 |")
    assert (
        "| no generator | 118 | 4.00 [4.00, 4.00] | 4.85 | 3.0 [3.0, 3.0] | 3.24 | +10.0 [+10.0, +10.0] |" in lines[2]
    )
    said = [line.partition(": **")[2] for line in ablation.claims(measured).splitlines()]
    assert said == [
        "held** (3 of 3 seeds)",  # 60 > 22
        "not held** (1 of 3 seeds)",  # 22 ≥ 23
        "held** (3 of 3 seeds)",
        "not held** (0 of 3 seeds)",  # 6 < 5.5
        "held** (3 of 3 seeds)",
        "held** (3 of 3 seeds)",
    ]


def test_the_reward_of_a_row_has_the_weights_at_the_end_of_training() -> None:
    scheduled = {"efficiency": "0:3@0:20", "diversity": "2"}
    settings = TrainSettings(reward=RewardSettings(preset="paper", weights=scheduled), decisions=24)
    terms = dict.fromkeys(("penalty", "reconstruction", "generation"), 0.0) | {"efficiency": 0.5, "diversity": 0.25}
    rows = [{"variant": "full", "seed": 0, **{f"reward_{term}": value for term, value in terms.items()}}]
    assert ablation.ablation_frame(rows, settings)["reward"].tolist() == pytest.approx([3 * 0.5 + 2 * 0.25])


def test_full_may_keep_as_many_tokens_as_without_reconstruction() -> None:
    variants = {name.replace("-", "_"): (22, 22, 22) for name in ablation.VARIANTS}
    said = ablation.claims(frame(**variants)).splitlines()
    assert [line.partition(": **")[2][:4] for line in said[:2]] == ["not ", "held"]


def test_one_weight_is_no_sweep() -> None:
    with pytest.raises(ValueError, match="at least two"):
        weights.weight_variants([4.0], VaporReward())


def test_one_seed_without_a_value_has_no_median() -> None:
    assert median_cell([1.0, np.nan, 2.0], Column("", ".1f")) == "–"


def test_steps_of_the_weights_by_hand() -> None:
    rows = [("a", 0, 1.0, 1.0, 3.0), ("b", 0, 2.0, 1.0, 2.0), ("c", 0, 1.5, 2.0, 2.5)]
    columns = ["variant", "seed", "reward_reconstruction", "reward_generation", "reward_efficiency"]
    said = weights.claims(pd.DataFrame(rows, columns=columns)).splitlines()
    assert ["not held" not in line for line in said] == [True, False, True, False, True, False]
    assert said[0].startswith("- a → b: raises `reconstruction`")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["sweep-weights", "--weights", "4", "2"], "got 4.0 2.0"),
        (["ablate-rewards", "--seeds"], "got none"),
        (["ablate-rewards", "--reward.scalarise", "math:fsum"], "math:fsum"),
        (["ablate-rewards", "--generator", "nowhere"], "nowhere"),
        (["ablate-rewards", "--network", "i3d:nowhere.pt"], "nowhere.pt"),
        (["ablate-rewards", "--decisions", "0"], "decisions"),
    ],
)
def test_mistakes_are_named(
    table_folder: str, tmp_path: Path, fails: Callable[..., str], options: list[str], said: str
) -> None:
    out = fails(*options, "--table", table_folder, "--path-length", "3", "--out", str(tmp_path / "out"))
    assert said in out


def test_a_generator_of_another_tokenizer_is_refused(
    generator: Path, table_folder: str, tmp_path: Path, fails: Callable[..., Any]
) -> None:
    model = ClipGenerator.load(generator)
    model.config = dataclasses.replace(model.config, weights="0" * 16)
    model.save(tmp_path / "other")
    options = ["--table", table_folder, "--path-length", "3", "--out", str(tmp_path / "out")]
    assert "0" * 16 in fails("ablate-rewards", "--generator", str(tmp_path / "other"), *options)


def test_distances_are_known_by_the_hash_of_the_network(generator: Path) -> None:
    assert DistanceSettings(generator=str(generator)).identity()[0] == open_feature_network().sha256


def test_a_generator_that_is_not_there_is_named_before_tables_are_built(
    tiny_world: str, tmp_path: Path, fails: Callable[..., str]
) -> None:
    options = ["--tokenizer", tiny_world, "--generator", "nowhere", "--out", str(tmp_path / "out")]
    assert "nowhere" in fails("ablate-rewards", "--quick", *options)
    assert not (tmp_path / "out").exists()


def test_the_table_of_the_weights_by_hand() -> None:
    shown = frame(a=(20, 24, 22)).assign(gfvd=3.0, **{f"reward_{term}": 0.5 for term in FIVE_TERMS})
    lines = weights.weights_table(shown).splitlines()
    assert lines[0].endswith("| penalty | tokens | rFVD | gFVD |")
    assert lines[2].endswith("| 0.5000 [0.5000, 0.5000] | 22.0 [20.0, 24.0] | 2 [2, 2] | 3 [3, 3] |")


def test_a_page_has_no_note_on_a_distance_that_it_does_not_show(
    study: Callable[..., None], generator: Path, tmp_path: Path
) -> None:
    study("sweep-weights", "--seeds", "0", "--weights", "1", "3", "--generator", str(generator))
    study("sweep-weights", "--seeds", "0", "--weights", "1", "3")
    page = (tmp_path / "out" / "sweep-weights.md").read_text()
    assert "gFVD |" not in page.splitlines()[2]
    assert "gFVD:" not in page


def test_a_search_tells_its_distances_and_refuses_those_of_another_generator(
    table_folder: str, generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr("vaportok_rl.experiments.runs.progress_report.add_clip", lambda *_: None)
    monkeypatch.setattr("vaportok_rl.experiments.runs.progress_report.comparison_frames", lambda *_, **__: None)
    model = ClipGenerator.load(generator)
    model.save(tmp_path / "generator")
    file, out = tmp_path / "some.toml", tmp_path / "out"
    file.write_text(f"""
seeds = [0]
[train]
table = "{table_folder}"
path_length = 3
scenes = 2
group_size = 2
decisions = 12
held_out_scenes = 3
[distances]
generator = "{tmp_path / "generator"}"
[optuna]
metric = "gfvd"
direction = "minimize"
trials = 1
[optuna.space]
n_epochs = [1, 2]
""")
    main(["sweep", str(file), "--out", str(out)])
    page = (out / "results.md").read_text()
    assert "gFVD: " in page
    main(["sweep", str(file), "--out", str(out)])
    assert (out / "results.md").read_text() == page
    next(model.parameters()).data += 1
    model.save(tmp_path / "generator")
    assert "choose another --out" in fails("sweep", str(file), "--out", str(out))
