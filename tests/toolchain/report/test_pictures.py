"""Do the drawings show what the figures say: the front, the range of the axis, what is surely worse, the longest operators?"""

import re

import msgspec
import pytest

from tests.toolchain.report.sample import VARIANTS, metric, result, target, tuning, variant
from toolchain.pipeline.record import SliceResult, VariantResult
from toolchain.report import intervals, layers, making, pareto, search, timing
from toolchain.report.svg import WIDE


def points(*figures: tuple[float, float, str], goal: str = "max") -> list[pareto.Point]:
    """figures: metric, cost, verdict."""
    return [pareto.Point(placed(f"v{index}", value, verdict, goal), cost) for index, (value, cost, verdict) in enumerate(figures)]


def placed(name: str, value: float, verdict: str, goal: str = "max") -> VariantResult:
    made = variant(name, "onnxruntime", "int8", (value, 100.0, 1.1, 1000), verdict, "x")
    return msgspec.structs.replace(made, metrics=(msgspec.structs.replace(made.metrics[0], goal=goal),))


def test_the_front_holds_what_nothing_that_passed_beats_at_both() -> None:
    given = points(
        (0.99, 400, "passed"), (0.98, 100, "chosen"), (0.97, 200, "passed"), (0.985, 300, "passed"), (0.999, 50, "rejected")
    )
    assert [point.variant.name for point in pareto.front(given)] == ["v1", "v3", "v0"]


def test_the_front_turns_round_where_less_is_better() -> None:
    given = points((0.30, 100, "passed"), (0.20, 200, "passed"), (0.25, 300, "passed"), goal="min")
    assert [point.variant.name for point in pareto.front(given)] == ["v0", "v1"]


def test_equal_variants_share_the_front() -> None:
    given = points((0.9, 100, "passed"), (0.9, 100, "passed"))
    assert len(pareto.front(given)) == 2


def test_a_collapsed_variant_does_not_flatten_the_others() -> None:
    given = points((0.99, 400, "passed"), (0.98, 100, "chosen"), (0.12, 50, "rejected"))
    low, high = pareto.metric_bounds(given, limit=0.97)
    assert 0.9 < low < 0.97
    assert 0.99 < high < 1.05
    drawn = str(pareto.trade_off(target(), "latency", (None, 0.9789)))
    assert "0.4123 ↓" in drawn


def test_every_variant_is_in_every_picture_of_its_latency() -> None:
    for drawn in (timing.distributions(target()), timing.speeds(target())):
        for each in VARIANTS:
            assert str(drawn).count(f'data-key="x86-64-cpu/{each.name}"') == 2  # for wide and for narrow screens


def test_a_latency_without_quantiles_still_has_a_body() -> None:
    found = VARIANTS[0].latency
    assert found is not None
    assert timing.bounds(found) == (found.quantiles[1], found.quantiles[5], found.quantiles[15], found.quantiles[19])
    bare = msgspec.structs.replace(found, quantiles=())
    assert timing.bounds(bare) == (found.p50_ns, found.p50_ns, found.p90_ns, found.p90_ns)
    assert timing.distributions(target(variants=(msgspec.structs.replace(VARIANTS[12], latency=bare),))) is not None


@pytest.mark.parametrize(
    ("value", "n", "goal", "is_worse"), [(0.76, 29, "max", True), (0.97, 29, "max", False), (0.76, 29, "min", False)]
)
def test_a_slice_is_surely_worse_only_outside_its_interval(value: float, n: int, goal: str, is_worse: bool) -> None:
    whole = msgspec.structs.replace(metric(0.98, "test", 400), goal=goal)
    assert intervals.is_worse(msgspec.structs.replace(metric(value, "test", n), goal=goal), whole) is is_worse


def test_the_worst_slices_come_first_and_only_so_many() -> None:
    slices = tuple(
        SliceResult(column="hour", value=f"h{index}", metric=metric(0.5 + index / 100, "test", 50)) for index in range(40)
    )
    ((name, worse, drawn),) = intervals.slice_columns(msgspec.structs.replace(target(), slices=slices))
    assert name == "hour"
    assert worse > 10
    assert "h0, n" in drawn
    assert "h39, n" not in drawn


def test_bars_of_operators_add_up_and_share_their_axis() -> None:
    colours = layers.kinds(target())
    assert len(colours) == 6
    found = VARIANTS[3].profile
    assert found is not None
    assert sum(layers.by_operator(found.layers, colours).values()) == sum(layer.ns for layer in found.layers)
    drawn = str(layers.bars(VARIANTS[3], colours, layers.longest_bar(VARIANTS[:4]), WIDE))
    assert "9 more" in drawn
    assert layers.bars(msgspec.structs.replace(VARIANTS[3], profile=None), colours, 1.0, WIDE) is None


def test_a_search_marks_its_best_and_the_limits_that_were_missed() -> None:
    view = search.view(tuning(), "accuracy")
    assert view is not None
    assert view.counts == {"within all limits": 12, "over a limit": 5, "stopped early": 2, "failed": 1}
    drawn = str(view.scatter)
    assert drawn.count("halo") == 2
    assert drawn.count("rejected") == 2 * 5
    assert "over the limit: max_latency_ms" in drawn
    assert search.view(None, "accuracy") is None


def test_the_best_trial_is_shown_however_many_there_are() -> None:
    (first, *_) = tuning().trials
    many = tuple(msgspec.structs.replace(first, number=number) for number in range(500))
    view = search.view(msgspec.structs.replace(tuning(), trials=many, best=3), "accuracy")
    assert view is not None
    assert len(view.trials) == search.MOST_TRIALS
    assert view.hidden == 300
    assert view.trials[0].number == 3


def test_a_search_with_one_objective_and_one_setting_can_be_drawn() -> None:
    trials = tuple(
        msgspec.structs.replace(each, values=each.values[:1], settings={"train.epochs": each.number}) for each in tuning().trials
    )
    view = search.view(msgspec.structs.replace(tuning(), trials=trials, objectives=("metric",)), "accuracy")
    assert view is not None
    assert view.scatter is not None
    assert view.settings is None


def test_many_stages_are_drawn_as_the_longest_and_the_rest() -> None:
    runs = result().stages
    drawn = str(making.stages(runs))
    assert f"{len(runs) - making.MOST_STAGES} shorter ones" in drawn
    assert len(re.findall(r"<rect[^>]*tabindex", drawn)) == 2 * (making.MOST_STAGES + 1)
