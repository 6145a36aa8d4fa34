from strop.report.curves import kind_of, plots_of, remaining

POINTS = ((0, 1.0),)


def test_the_kind_is_guessed_from_the_metrics_where_it_is_not_told():
    assert kind_of("", ["loss", "mean_token_accuracy"]) == "sft"
    assert kind_of("", ["loss", "rewards/margins"]) == "preference"
    assert kind_of("unheard of", ["loss", "rewards/exact/mean"]) == "rl"
    assert kind_of("sft", ["reward"]) == "sft"


def test_many_reward_parts_are_spread_over_plots():
    series = {f"rewards/r{i}/mean": POINTS for i in range(9)} | {"reward": POINTS}
    found = [(plot.title, len(names)) for plot, names in plots_of("rl", series, 7)]
    assert found == [("Reward", 1), ("Reward parts", 7), ("Reward parts", 2)]


def test_each_metric_is_drawn_once_or_listed_as_left_over():
    names = ["loss", "kl", "reward_std", "clip_ratio/low_mean", "phase/train_s", "tokens_per_s", "my/own"]
    series = dict.fromkeys(names, POINTS)
    drawn = [name for _, names in plots_of("rl", series, 7) for name in names]
    assert sorted(drawn) == ["clip_ratio/low_mean", "kl", "loss"]
    assert remaining("rl", series) == ["my/own", "reward_std"]
